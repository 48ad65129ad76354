/** The calls that commands make to functions of the host. */

import { ReceiveWindow, WINDOW } from "./credit.js";
import { SnakepitError, errorFromWire } from "./errors.js";
import { FrameType } from "./frames.js";
import { callFrame, messageFrame, readBody, readItems, violation } from "./messages.js";
import { isPlainObject } from "./plain.js";

/** All calls to the host that have not ended. */
export class HostCalls {
  #send;
  #open = new Map();
  #lastId = 0n;

  constructor(send) {
    this.#send = send;
  }

  isOpen(id) {
    return this.#open.has(id);
  }

  /** Hand over an answer; one for a call that was left is dropped. */
  deliver(frame) {
    const outgoing = this.#open.get(frame.callId);
    if (outgoing === undefined) return;
    if (frame.type !== FrameType.ITEM) this.#open.delete(frame.callId);
    outgoing.arrived(frame);
  }

  /** Leave the calls of a command that has ended, or is to stop. */
  abandon(owner, reason) {
    for (const outgoing of [...this.#open.values()]) {
      if (outgoing.owner === owner) {
        this.#leave(outgoing);
        outgoing.abandon(reason);
      }
    }
  }

  /** Resolves with the result of a host function. */
  call(owner, name, args) {
    const outgoing = new Outgoing(owner);
    outgoing.promise = this.#resultOf(outgoing, name, args);
    return outgoing.promise;
  }

  async #resultOf(outgoing, name, args) {
    this.#start(outgoing, name, args, null);
    const frame = await outgoing.next();
    if (frame.type !== FrameType.RESULT) throw failureOf(frame);
    return readBody(frame, 1)[0];
  }

  /** The items of a generator function of the host; leaving the loop stops it. */
  async *stream(owner, name, args) {
    const outgoing = new Outgoing(owner);
    const window = new ReceiveWindow();
    this.#start(outgoing, name, args, [WINDOW.items, WINDOW.bytes]);
    try {
      for (;;) {
        const frame = await outgoing.next();
        if (frame.type === FrameType.END) return;
        if (frame.type !== FrameType.ITEM) throw failureOf(frame);
        const items = readItems(frame);
        window.arrived(items.length, frame.body.length);
        yield* items;
        this.#grant(outgoing, window.consumed(items.length, frame.body.length));
      }
    } finally {
      this.#leave(outgoing);
    }
  }

  #start(outgoing, name, args, credit) {
    const { owner } = outgoing;
    owner.signal.throwIfAborted();
    if (owner.ended) {
      throw new SnakepitError(`call ${owner.id} has ended, and can't call the host any more`, {
        code: "no_current_call",
      });
    }
    if (!isPlainObject(args)) {
      throw new TypeError(`the arguments of ${name} have to be an object, not a ${typeof args}`);
    }
    const id = this.#lastId + 2n;
    const request = { timeout: owner.remaining(), session: owner.session, parent: owner.id };
    this.#send(callFrame(id, { name, args, ...request, credit }));
    // Only now: an id that was not sent would be missing.
    this.#lastId = outgoing.id = id;
    this.#open.set(id, outgoing);
  }

  #grant(outgoing, due) {
    if (due !== undefined && this.#open.has(outgoing.id)) {
      this.#send(messageFrame(FrameType.CREDIT, outgoing.id, due.items, due.bytes));
    }
  }

  #leave(outgoing) {
    if (this.#open.delete(outgoing.id)) {
      this.#send(messageFrame(FrameType.CANCEL, outgoing.id, "no longer wanted"));
    }
  }
}

/** A call to the host, and the frames that have come for it. */
class Outgoing {
  id;
  promise;
  #frames = [];
  #failure;
  #wake = () => {};

  constructor(owner) {
    this.owner = owner;
  }

  arrived(frame) {
    this.#frames.push(frame);
    this.#wake();
  }

  abandon(reason) {
    // A command need not have waited for it, and then nobody handles that it fails.
    this.promise?.catch(() => {});
    this.#failure = reason;
    this.#wake();
  }

  async next() {
    while (this.#frames.length === 0 && this.#failure === undefined) {
      await new Promise((resolve) => (this.#wake = resolve));
    }
    if (this.#failure !== undefined) throw this.#failure;
    return this.#frames.shift();
  }
}

/** The error in a frame that is neither a result nor items. */
function failureOf(frame) {
  if (frame.type === FrameType.ERROR) return errorFromWire(readBody(frame, 1)[0]);
  if (frame.type === FrameType.CANCELLED) {
    return new SnakepitError("the host ended this call; stop the work it was made for", {
      code: "host_call_cancelled",
      outcome: "unknown",
    });
  }
  return violation(`the host answered a call by a frame of type ${frame.type}`);
}
