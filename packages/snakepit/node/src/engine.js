/** Runs the calls of one worker: one after the other, or side by side, and nested ones at once. */

import { RunningCall } from "./call.js";
import { selectCommand } from "./commands.js";
import { endProcess } from "./connection.js";
import { errorToWire, raisedToWire } from "./errors.js";
import { FrameType, HEADER_BYTES } from "./frames.js";
import { HostCalls } from "./host.js";
import {
  errorFrame,
  itemFrame,
  messageFrame,
  readBody,
  readCall,
  readCredit,
  readIds,
  resultFrame,
  violation,
} from "./messages.js";

/** What becomes of a call that was withdrawn before it came: it is answered, or nothing is sent. */
const Withdrawn = Object.freeze({ REFUSE: "refuse", DROP: "drop" });

export class Engine {
  #data;
  #control;
  #commands = null;
  #slots;
  #onFinished;
  #host;
  #running = new Map();
  #waiting = [];
  #withdrawn = new Map();
  #lastId = 0n;
  #taken = 0;
  #shutdown = false;

  /**
   * @param data,control the worker's channels.
   * @param concurrency how many calls at most run at a time; more wait only where it is 1.
   * @param onFinished called when the host has said `SHUTDOWN` and all calls have ended.
   */
  constructor(data, control, concurrency, onFinished) {
    this.#data = data;
    this.#control = control;
    this.#slots = concurrency === 1 ? 1 : Infinity;
    this.#onFinished = onFinished;
    this.#host = new HostCalls((frame) => data.send(frame));
  }

  /** Take calls from now on. */
  serve(commands) {
    this.#commands = commands;
  }

  onData(frame) {
    const handle = ON_DATA[frame.type];
    if (handle === undefined) throw violation(`a host may not send a frame of type ${frame.type}`);
    handle(this, frame);
  }

  onControl(frame) {
    const handle = ON_CONTROL[frame.type];
    if (handle === undefined) throw violation(`no frame of type ${frame.type} belongs on control`);
    handle(this, frame);
  }

  // --- from the host -----------------------------------------------------------------------------

  call(frame) {
    const id = frame.callId;
    if (this.#commands === null) throw violation("a call came before READY");
    if (id % 2n === 0n || id <= this.#lastId) {
      throw violation(`the host's call id ${id} is not odd and ascending`);
    }
    this.#lastId = id;
    const withdrawn = this.#withdrawn.get(id);
    if (withdrawn === undefined) return this.#accept(id, requestOf(frame));
    this.#withdrawn.delete(id);
    if (withdrawn === Withdrawn.REFUSE) this.#data.send(stoppedFrame(id));
  }

  answer(frame) {
    this.#host.deliver(frame);
  }

  credit(frame) {
    const credit = readCredit(frame);
    this.#running.get(frame.callId)?.window?.grant(credit);
  }

  shutdown() {
    this.#shutdown = true;
    this.#finishIfIdle();
  }

  cancel(frame) {
    const id = frame.callId;
    const running = this.#running.get(id);
    if (running !== undefined) running.cancel();
    else if (id > this.#lastId) this.#withdrawn.set(id, Withdrawn.REFUSE);
    else if (this.#forget(id)) this.#data.send(stoppedFrame(id));
  }

  recall(frame) {
    const unstarted = readIds(frame).filter((id) => this.#withdraw(id));
    this.#control.send(messageFrame(FrameType.RECALLED, 0n, unstarted));
  }

  ping(frame) {
    this.#control.send(messageFrame(FrameType.PONG, 0n, ...readBody(frame, 1)));
  }

  // --- one call ----------------------------------------------------------------------------------

  #accept(id, { request, problem }) {
    const nested = request !== undefined && this.#host.isOpen(request.parent);
    if (nested) {
      this.#start({ id, request }, 0);
    } else {
      this.#waiting.push({ id, request, problem });
      this.#startWaiting();
    }
  }

  #startWaiting() {
    while (this.#waiting.length > 0 && this.#taken < this.#slots) {
      const { problem, ...incoming } = this.#waiting.shift();
      if (problem === undefined) this.#start(incoming, 1);
      else this.#data.send(errorFrame(incoming.id, errorToWire(problem)));
    }
  }

  #start({ id, request }, slots) {
    const running = new RunningCall(id, request, this.#host);
    this.#running.set(id, running);
    this.#taken += slots;
    this.#replyTo(running, request)
      .then((reply) => {
        running.end();
        this.#running.delete(id);
        this.#taken -= slots;
        this.#data.send(reply);
        this.#startWaiting();
        this.#finishIfIdle();
      })
      .catch(endProcess);
  }

  /** Run the command; resolves with its final frame. */
  async #replyTo(running, request) {
    const { id } = running.call;
    let command;
    try {
      command = selectCommand(this.#commands, request);
    } catch (error) {
      return errorFrame(id, errorToWire(error));
    }
    try {
      const outcome = command.run(running.args, running.call);
      if (command.streams) return await this.#stream(running, outcome);
      const result = await outcome;
      return encoded(() => resultFrame(id, result));
    } catch (error) {
      return running.isStoppedBy(error) ? stoppedFrame(id) : errorFrame(id, raisedToWire(error));
    }
  }

  async #stream({ call, window }, items) {
    // Leaving the loop by an error ends the generator, so its `finally` blocks run.
    for await (const item of items) {
      await window.opened();
      const frame = encoded(() => itemFrame(call.id, item));
      window.spend(frame.length - HEADER_BYTES);
      this.#data.send(frame);
    }
    return messageFrame(FrameType.END, call.id);
  }

  #finishIfIdle() {
    const idle = this.#running.size === 0 && this.#waiting.length === 0;
    if (this.#shutdown && idle) this.#onFinished();
  }

  /** See to it that a call never starts; false if it has started, or was withdrawn before. */
  #withdraw(id) {
    if (id <= this.#lastId) return this.#forget(id);
    if (this.#withdrawn.has(id)) return false;
    this.#withdrawn.set(id, Withdrawn.DROP);
    return true;
  }

  #forget(id) {
    const index = this.#waiting.findIndex((incoming) => incoming.id === id);
    if (index >= 0) this.#waiting.splice(index, 1);
    return index >= 0;
  }
}

const ON_DATA = {
  [FrameType.CALL]: (engine, frame) => engine.call(frame),
  [FrameType.RESULT]: (engine, frame) => engine.answer(frame),
  [FrameType.ERROR]: (engine, frame) => engine.answer(frame),
  [FrameType.CANCELLED]: (engine, frame) => engine.answer(frame),
  [FrameType.ITEM]: (engine, frame) => engine.answer(frame),
  [FrameType.END]: (engine, frame) => engine.answer(frame),
  [FrameType.CREDIT]: (engine, frame) => engine.credit(frame),
  [FrameType.SHUTDOWN]: (engine) => engine.shutdown(),
};

const ON_CONTROL = {
  [FrameType.CANCEL]: (engine, frame) => engine.cancel(frame),
  [FrameType.PING]: (engine, frame) => engine.ping(frame),
  [FrameType.RECALL]: (engine, frame) => engine.recall(frame),
};

/** What a `CALL` asks for, or what is wrong with it: that is told when its turn has come. */
function requestOf(frame) {
  try {
    return { request: readCall(frame) };
  } catch (problem) {
    return { problem };
  }
}

function stoppedFrame(id) {
  return messageFrame(FrameType.CANCELLED, id, false);
}

/** What can't travel is the error of a command that has run. */
function encoded(build) {
  try {
    return build();
  } catch (error) {
    error.outcome = "done";
    throw error;
  }
}
