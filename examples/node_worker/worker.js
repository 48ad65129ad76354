/** Text and numbers as people write them: what Node knows of the world's languages. */

// Where it is installed: from "snakepit-worker".
import { serve } from "../../packages/snakepit/node/src/index.js";

serve(({ locale }) => ({
  /** An amount of money, as it is written there. */
  price: ({ amount, currency }) =>
    new Intl.NumberFormat(locale, { style: "currency", currency }).format(amount),

  /** Words in the order of a dictionary. */
  sorted: ({ words }) => [...words].sort(new Intl.Collator(locale).compare),

  /** The words of a text, also where no spaces are between them; a generator is a stream. */
  *words({ text }) {
    const segmenter = new Intl.Segmenter(locale, { granularity: "word" });
    for (const { segment, isWordLike } of segmenter.segment(text)) {
      if (isWordLike) yield segment;
    }
  },

  /** Asks the host for the meaning of each word. */
  async gloss({ words }, call) {
    const meanings = [];
    for (const word of words) meanings.push(await call.callHost("look_up", { word }));
    return meanings.join(" ");
  },
}));
