/** The life of a worker: handshake, serving, orderly end. */

import { createRequire } from "node:module";

import { commandsOf } from "./commands.js";
import { Connection, endProcess } from "./connection.js";
import { Engine } from "./engine.js";
import { errorToWire } from "./errors.js";
import { FrameType } from "./frames.js";
import { messageFrame, readBody, violation } from "./messages.js";

const { version: RUNTIME } = createRequire(import.meta.url)("../package.json");
const VERSION = 1;
const DATA_FD = 3;
const CONTROL_FD = 4;

/**
 * Serve the pool that has started this process, until it says that it is enough.
 *
 * @param commands what the pool may call: an object of functions by name, or a function (also an
 *   async one) that makes it from the adapter's `config`. A command is called with its arguments,
 *   an object, and the `Call` that it serves. It returns a value or a promise of one; a generator,
 *   async or not, is a stream. `this` is the object.
 * @param {{close?: () => void | Promise<void>}} [hooks] `close`: called before an orderly end.
 * @throws {Error} no pool has started this process.
 *
 * @example
 * serve({
 *   greet: ({ name }) => `Hello, ${name}!`,
 *   async *count({ n }) {
 *     for (let i = 0; i < n; i++) yield i;
 *   },
 * });
 */
export function serve(commands, { close = () => {} } = {}) {
  new Worker(commands, close).greet();
}

class Worker {
  #data = new Connection(DATA_FD, (frame) => this.#onData(frame));
  #control = new Connection(CONTROL_FD, (frame) => this.#onControl(frame));
  #commands;
  #close;
  #engine = null;

  constructor(commands, close) {
    this.#commands = commands;
    this.#close = close;
  }

  greet() {
    const info = {
      language: "javascript",
      node: process.version,
      runtime: RUNTIME,
      features: ["recall"],
    };
    this.#data.send(messageFrame(FrameType.HELLO, 0n, [VERSION], process.pid, info));
  }

  #onData(frame) {
    if (this.#engine === null) this.#onWelcome(frame);
    else this.#engine.onData(frame);
  }

  #onControl(frame) {
    if (this.#engine === null) throw violation("the host did not begin with WELCOME");
    this.#engine.onControl(frame);
  }

  #onWelcome(frame) {
    if (frame.type !== FrameType.WELCOME) throw violation("the host did not begin with WELCOME");
    const [version, { config, concurrency }] = readBody(frame, 2);
    if (version !== VERSION) throw violation(`the host chose version ${version} of the protocol`);
    this.#engine = new Engine(this.#data, this.#control, concurrency, () => this.#end());
    this.#construct(config).catch(endProcess);
  }

  async #construct(config) {
    let commands;
    try {
      const made = typeof this.#commands === "function" ? this.#commands(config) : this.#commands;
      commands = commandsOf(await made);
    } catch (error) {
      this.#data.send(messageFrame(FrameType.FAILED, 0n, errorToWire(error)));
      await this.#data.flush();
      process.exit(1);
    }
    this.#engine.serve(commands);
    const names = [...commands].map(([name, { streams }]) => [name, { stream: streams }]);
    this.#data.send(messageFrame(FrameType.READY, 0n, Object.fromEntries(names)));
  }

  #end() {
    this.#endInOrder().catch(endProcess);
  }

  async #endInOrder() {
    await this.#close();
    await this.#data.flush();
    process.exit(0);
  }
}
