/** The call that a command serves: what the command sees of it, and how it is stopped. */

import { SendWindow } from "./credit.js";

/**
 * A command gets it as its second argument.
 *
 * - `id`: unique within the life of the worker. `command`: the name the host called.
 * - `session`: the session the call belongs to, or null.
 * - `signal`: an AbortSignal, aborted when the result is no longer wanted. Hand it to what the
 *   command waits for; code that does not look at it can only be killed, with its process.
 */
export class Call {
  #host;
  #deadline;

  constructor(id, { command, session, timeout }, signal, host) {
    Object.assign(this, { id, command, session, signal, ended: false });
    this.#deadline = timeout === null ? null : now() + timeout;
    this.#host = host;
  }

  /** Seconds left until the call's deadline, at least 0; null without one. */
  remaining() {
    return this.#deadline === null ? null : Math.max(0, this.#deadline - now());
  }

  /**
   * Call a function of the host; resolves with its result. What it calls back into this worker runs
   * meanwhile.
   *
   * @throws {SnakepitError} what the function raised; or `unknown_command`, `encode_error`.
   */
  callHost(name, args = {}) {
    return this.#host.call(this, name, args);
  }

  /** The items of a generator function of the host, as an async iterator; throws as `callHost`. */
  callHostStream(name, args = {}) {
    return this.#host.stream(this, name, args);
  }
}

/** A call that has started, with what the engine needs of it. */
export class RunningCall {
  #controller = new AbortController();
  #host;

  constructor(id, request, host) {
    this.call = new Call(id, request, this.#controller.signal, host);
    this.args = request.args;
    this.window = request.credit === null ? null : new SendWindow(request.credit);
    this.#host = host;
  }

  /** Tell its code to stop. */
  cancel() {
    const reason = new DOMException("the call is no longer wanted", "AbortError");
    this.#controller.abort(reason);
    this.window?.close(reason);
    this.#host.abandon(this.call, reason);
  }

  /** Whether an error of its code is how it stops on request. */
  isStoppedBy(error) {
    const { signal } = this.call;
    return signal.aborted && (error === signal.reason || error?.name === "AbortError");
  }

  /** Its code has come to its end. */
  end() {
    this.call.ended = true;
    this.#host.abandon(this.call, new Error(`call ${this.call.id} has ended`));
  }
}

function now() {
  return performance.now() / 1000;
}
