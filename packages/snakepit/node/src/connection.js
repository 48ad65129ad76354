/** One of a worker's two channels, which it inherits as open sockets. */

import { Socket } from "node:net";

import { FrameDecoder } from "./frames.js";

/** The process ends with it when there is no host any more to answer to. */
const HOST_GONE = 3;
const BROKEN = 1;

export class Connection {
  #socket;
  #decoder = new FrameDecoder();

  /**
   * @param fd the descriptor it was born with.
   * @param {(frame) => void} onFrame what it throws ends the process: the peer broke the protocol.
   * @throws {Error} there is no socket at `fd`.
   */
  constructor(fd, onFrame) {
    this.#socket = openSocket(fd);
    this.#socket.on("data", (chunk) => endProcessIfItThrows(() => this.#read(chunk, onFrame)));
    // An error is always followed by `close`.
    this.#socket.on("error", () => {});
    this.#socket.on("close", () => process.exit(HOST_GONE));
  }

  send(frame) {
    this.#socket.write(frame);
  }

  /** Resolves when all that was sent has been handed to the system. */
  flush() {
    return new Promise((resolve) => this.#socket.write("", resolve));
  }

  #read(chunk, onFrame) {
    for (const frame of this.#decoder.feed(chunk)) onFrame(frame);
  }
}

function openSocket(fd) {
  try {
    return new Socket({ fd });
  } catch (cause) {
    const message = `a pool starts this program, and gives it sockets; there is none at ${fd}`;
    throw new Error(message, { cause });
  }
}

/** For code of this library: whoever waits for what it failed to do would wait for ever. */
export function endProcessIfItThrows(work) {
  try {
    return work();
  } catch (error) {
    return endProcess(error);
  }
}

/** End at once, with the reason in the last output. */
export function endProcess(error) {
  console.error(error);
  process.exit(BROKEN);
}
