/**
 * The conformance worker with one fault, which its first argument names: for the tests of the
 * conformance suite. Each fault replaces one method of the library, or what passes through it.
 */

import { Call, RunningCall } from "../src/call.js";
import { Connection } from "../src/connection.js";
import { SendWindow } from "../src/credit.js";
import { decode } from "../src/decoder.js";
import { encode } from "../src/encoder.js";
import { FrameDecoder, FrameType, HEADER_BYTES, encodeFrame } from "../src/frames.js";

const sendAsItIs = Connection.prototype.send;
const feedAsItIs = FrameDecoder.prototype.feed;

/** Change the frames of a type that are sent; nothing is sent when `change` returns nothing. */
function outgoing(type, change) {
  const send = Connection.prototype.send;
  Connection.prototype.send = function (frame) {
    if (frame[4] !== type) return send.call(this, frame);
    const callId = frame.readBigUInt64LE(8);
    const changed = change(decode(frame.subarray(HEADER_BYTES)), frame[5]);
    if (changed !== undefined) {
      const { body, flags = frame[5], times = 1 } = changed;
      const made = encodeFrame(type, callId, encode(body), flags);
      for (let time = 0; time < times; time++) sendAsItIs.call(this, made);
    }
  };
}

/** Change the frames of a type that come; `change` returns the frame, or nothing to lose it. */
function incoming(type, change) {
  const feed = FrameDecoder.prototype.feed;
  FrameDecoder.prototype.feed = function (chunk) {
    const frames = feed.call(this, chunk);
    return frames.flatMap((frame) => (frame.type === type ? (change(frame) ?? []) : [frame]));
  };
}

function exitInsteadOf(code, other) {
  const exit = process.exit;
  process.exit = (found) => exit(found === code ? other : found);
}

const FAULTS = {
  "versions are texts": () =>
    outgoing(FrameType.HELLO, ([, pid, info]) => ({ body: [["1"], pid, info] })),

  "streams are not told": () =>
    outgoing(FrameType.READY, ([commands]) => ({
      body: [Object.fromEntries(Object.keys(commands).map((name) => [name, { stream: false }]))],
    })),

  "any version will do": () =>
    incoming(FrameType.WELCOME, (frame) => {
      const [, config] = decode(frame.body);
      return { ...frame, body: encode([1, config]) };
    }),

  "shutdown is a failure": () => exitInsteadOf(0, 7),

  "failure is a success": () =>
    outgoing(FrameType.FAILED, (body) => {
      exitInsteadOf(1, 0);
      return { body };
    }),

  "unknown flags are ignored": () => {
    FrameDecoder.prototype.feed = function (chunk) {
      const isFrame = chunk.length >= HEADER_BYTES && chunk.readUInt32LE(0) < chunk.length;
      if (isFrame && chunk[4] === FrameType.CALL) chunk[5] &= 0x07;
      return feedAsItIs.call(this, chunk);
    };
  },

  "even ids are made odd": () =>
    incoming(FrameType.CALL, (frame) => ({ ...frame, callId: frame.callId | 1n })),

  "longer bodies are refused": () =>
    incoming(FrameType.CALL, (frame) => {
      const fields = frame.body[0] & 0x0f;
      return fields > 6 ? { ...frame, body: encode({}) } : frame;
    }),

  "unknown commands have run": () =>
    outgoing(FrameType.ERROR, ([error]) => {
      const unknown = error.code === "unknown_command";
      return { body: [unknown ? { ...error, outcome: "done" } : error] };
    }),

  "inner errors are passed on as they are": () =>
    outgoing(FrameType.ERROR, ([error]) => {
      const inner = error.code === "pool_saturated";
      return { body: [inner ? { ...error, outcome: "none", retryable: true } : error] };
    }),

  "credit does not count": () =>
    Object.defineProperty(SendWindow.prototype, "isOpen", { get: () => true }),

  "running calls go on": () => {
    const cancel = RunningCall.prototype.cancel;
    RunningCall.prototype.cancel = function () {
      if (this.call.command !== "sleep") cancel.call(this);
    };
  },

  "early cancellations are forgotten": () => {
    let last = 0n;
    incoming(FrameType.CALL, (frame) => {
      last = frame.callId;
      return frame;
    });
    incoming(FrameType.CANCEL, (frame) => (frame.callId <= last ? frame : undefined));
  },

  "all that is asked for is recalled": () => {
    let asked = [];
    incoming(FrameType.RECALL, (frame) => {
      [asked] = decode(frame.body);
      return frame;
    });
    outgoing(FrameType.RECALLED, () => ({ body: [asked] }));
  },

  "tokens are made texts": () =>
    outgoing(FrameType.PONG, ([token]) => ({ body: [String(token)] })),

  "host calls have no parent": () =>
    outgoing(FrameType.CALL, ([name, args, timeout, session, , credit], flags) => ({
      body: [name, args, timeout, session, null, credit],
      flags: flags & ~2,
    })),

  "time is endless": () => {
    Call.prototype.remaining = () => null;
  },

  "integers are floats": () =>
    outgoing(FrameType.RESULT, ([value]) => ({
      body: [typeof value === "bigint" ? Number(value) : value],
    })),

  "results come twice": () => outgoing(FrameType.RESULT, (body) => ({ body, times: 2 })),
};

const install = FAULTS[process.argv[2]];
if (install === undefined) throw new Error(`there is no fault ${process.argv[2]}`);
install();
await import("./worker.js");
