/** Frames: bytes in, frames out. Knows no socket and no call; the layout is that of PROTOCOL.md. */

import { SnakepitError } from "./errors.js";

export const HEADER_BYTES = 16;
export const MAX_BODY_BYTES = 2 ** 30;

export const FrameType = Object.freeze({
  HELLO: 1,
  WELCOME: 2,
  READY: 3,
  FAILED: 4,
  SHUTDOWN: 5,
  CALL: 16,
  RESULT: 17,
  ERROR: 18,
  CANCELLED: 19,
  ITEM: 20,
  END: 21,
  CREDIT: 22,
  CANCEL: 32,
  PING: 33,
  PONG: 34,
  RECALL: 35,
  RECALLED: 36,
});

/** `SEGMENTS` (bit 2) is not among them: this library can't receive descriptors, and says so. */
export const Flag = Object.freeze({ STREAM: 1, NESTED: 2 });

const KNOWN_TYPES = new Set(Object.values(FrameType));
const KNOWN_FLAGS = Flag.STREAM | Flag.NESTED;

/**
 * The bytes of one frame. `callId` is a BigInt, as ids have 64 bits.
 *
 * @throws {SnakepitError} `payload_too_large`: the body is over 1 GiB.
 */
export function encodeFrame(type, callId, body, flags = 0) {
  if (body.length > MAX_BODY_BYTES) throw tooLarge(body.length);
  const frame = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  frame.writeUInt32LE(body.length, 0);
  frame[4] = type;
  frame[5] = flags;
  frame.writeUInt16LE(0, 6);
  frame.writeBigUInt64LE(callId, 8);
  frame.set(body, HEADER_BYTES);
  return frame;
}

/** Puts the chunks of a byte stream together again. */
export class FrameDecoder {
  #chunks = [];
  #size = 0;
  #needed = HEADER_BYTES;

  /**
   * The frames that `chunk` completes, as `{type, flags, callId, body}`.
   *
   * @throws {SnakepitError} `protocol_error`, `payload_too_large`: a header is refused. It need not
   *   wait for the body, and nothing that follows can be read.
   */
  feed(chunk) {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    // Joined only when a frame is complete: a long one comes in thousands of chunks.
    if (this.#size < this.#needed) return [];
    const frames = [];
    let data = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    for (;;) {
      this.#needed = HEADER_BYTES;
      if (data.length < HEADER_BYTES) break;
      const { size, ...header } = readHeader(data);
      this.#needed += size;
      if (data.length < this.#needed) break;
      frames.push({ ...header, body: data.subarray(HEADER_BYTES, this.#needed) });
      data = data.subarray(this.#needed);
    }
    this.#chunks = data.length > 0 ? [data] : [];
    this.#size = data.length;
    return frames;
  }
}

function readHeader(data) {
  const size = data.readUInt32LE(0);
  const type = data[4];
  const flags = data[5];
  const reserved = data.readUInt16LE(6);
  if (!KNOWN_TYPES.has(type) || flags & ~KNOWN_FLAGS || reserved) {
    throw new SnakepitError(
      `the host sent a frame of type ${type} with flags ${flags} and reserved ${reserved}, ` +
        "which this worker does not know",
      { code: "protocol_error" },
    );
  }
  if (size > MAX_BODY_BYTES) throw tooLarge(size);
  return { size, type, flags, callId: data.readBigUInt64LE(8) };
}

function tooLarge(size) {
  return new SnakepitError(
    `a frame body of ${size} bytes is over the limit of ${MAX_BODY_BYTES} bytes; ` +
      "send the data in pieces, as a stream",
    { code: "payload_too_large", details: { size, limit: MAX_BODY_BYTES } },
  );
}
