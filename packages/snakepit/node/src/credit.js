/** How far the producer of a stream may be ahead of its consumer, in items and in bytes. */

import { violation } from "./messages.js";

/** What this side, as a consumer, takes before it grants more. */
export const WINDOW = Object.freeze({ items: 64, bytes: 2 ** 20 });

/** What a producer may send. */
export class SendWindow {
  #items;
  #bytes;
  #reason;
  #wake = () => {};

  constructor({ items, bytes }) {
    this.#items = items;
    this.#bytes = bytes;
  }

  get isOpen() {
    return this.#items > 0 && this.#bytes > 0;
  }

  grant({ items, bytes }) {
    this.#items += items;
    this.#bytes += bytes;
    this.#wake();
  }

  /** An item was sent in a frame with a body of so many bytes, perhaps more than there were. */
  spend(bytes) {
    this.#items -= 1;
    this.#bytes -= bytes;
  }

  /** Nothing is to be sent any more. */
  close(reason) {
    this.#reason = reason;
    this.#wake();
  }

  /** Waits until something may be sent; rejects with the reason when nothing ever may. */
  async opened() {
    while (!this.isOpen && this.#reason === undefined) {
      await new Promise((resolve) => (this.#wake = resolve));
    }
    if (this.#reason !== undefined) throw this.#reason;
  }
}

/** What a consumer has granted, and is to grant again. */
export class ReceiveWindow {
  #items = WINDOW.items;
  #bytes = WINDOW.bytes;
  #usedItems = 0;
  #usedBytes = 0;

  /** Note a frame of items; throws a violation when its producer had no credit for it. */
  arrived(items, bytes) {
    if (items === 0) throw violation("a stream brought a frame without items");
    if (items > this.#items || this.#bytes <= 0) {
      throw violation(`a stream brought ${items} items, more than it was granted`);
    }
    this.#items -= items;
    this.#bytes -= bytes;
  }

  /** Note that items were used up; the credit that is due now, or undefined. Granted in halves. */
  consumed(items, bytes) {
    this.#usedItems += items;
    this.#usedBytes += bytes;
    if (this.#usedItems * 2 < WINDOW.items && this.#usedBytes * 2 < WINDOW.bytes) return undefined;
    const due = { items: this.#usedItems, bytes: this.#usedBytes };
    this.#items += due.items;
    this.#bytes += due.bytes;
    this.#usedItems = this.#usedBytes = 0;
    return due;
  }
}
