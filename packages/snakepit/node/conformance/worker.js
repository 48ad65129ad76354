/** The commands that the conformance suite asks of a program; see docs/other-languages.md. */

import { setTimeout as sleep } from "node:timers/promises";

import { serve } from "../src/index.js";

const commands = {
  echo: ({ value }) => value,

  fail({ message }) {
    throw new Error(message);
  },

  async sleep({ seconds }, { signal }) {
    await sleep(seconds * 1000, undefined, { signal });
    return seconds;
  },

  context: (_, call) => ({ session: call.session, remaining: call.remaining() }),

  unsendable: () => Symbol("a symbol"),

  call_host: ({ name, args }, call) => call.callHost(name, args),

  async host_items({ name, args, limit }, call) {
    const items = [];
    for await (const item of call.callHostStream(name, args)) {
      items.push(item);
      if (items.length === limit) break;
    }
    return items;
  },

  async *count({ n, pause }, { signal }) {
    for (let i = 0; i < n; i++) {
      if (i > 0 && pause > 0) await sleep(pause * 1000, undefined, { signal });
      yield i;
    }
  },

  *repeat({ value, n }) {
    for (let i = 0; i < n; i++) yield value;
  },

  *fail_after({ n, message }) {
    for (let i = 0; i < n; i++) yield i;
    throw new Error(message);
  },
};

serve(({ fail }) => {
  if (fail !== undefined) throw new Error(fail);
  return commands;
});
