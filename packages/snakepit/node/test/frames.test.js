import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { decode } from "../src/decoder.js";
import { FrameDecoder, FrameType, encodeFrame } from "../src/frames.js";

const golden = JSON.parse(
  readFileSync(new URL("../../src/snakepit/testing/golden/frames.json", import.meta.url)),
);
const OPTIONAL = ["SEGMENT", "RELEASE", "DISCARD", "LISTEN", "EVENTS", "STACKS"];
/** What is sent only where both sides have segments, events or stacks, which this library does without. */
const isOptional = ({ type, flags }) => flags.includes("SEGMENTS") || OPTIONAL.includes(type);
const known = golden.frames.filter((vector) => !isOptional(vector));

function bytesOf(vector) {
  return Buffer.from(vector.hex, "hex");
}

for (const vector of known) {
  test(`golden: ${vector.name}`, () => {
    const [frame] = new FrameDecoder().feed(bytesOf(vector));
    const flags = vector.flags.reduce((sum, name) => sum + golden.flags[name], 0);
    assert.deepEqual(
      [frame.type, frame.flags, frame.callId],
      [FrameType[vector.type], flags, BigInt(vector.call_id)],
    );
    assert.deepEqual(decode(frame.body), vector.body);
    const encoded = encodeFrame(frame.type, frame.callId, frame.body, frame.flags);
    assert.equal(encoded.toString("hex"), vector.hex);
  });
}

for (const vector of [...golden.refused, ...golden.frames.filter(isOptional)]) {
  test(`golden, refused from its header: ${vector.name}`, () => {
    const code = vector.error ?? "protocol_error";
    assert.throws(() => new FrameDecoder().feed(bytesOf(vector).subarray(0, 16)), { code });
  });
}

test("frames are the same however their bytes come", () => {
  const bytes = Buffer.concat(known.map(bytesOf));
  const whole = new FrameDecoder().feed(bytes);
  assert.equal(whole.length, known.length);
  for (const step of [1, 3, 16, 17, 100]) {
    const decoder = new FrameDecoder();
    const frames = [];
    for (let at = 0; at < bytes.length; at += step) {
      frames.push(...decoder.feed(Buffer.from(bytes.subarray(at, at + step))));
    }
    assert.deepEqual(frames, whole);
  }
});

test("a body over the limit is not sent", () => {
  const body = { length: 2 ** 30 + 1 };
  assert.throws(() => encodeFrame(FrameType.RESULT, 1n, body), { code: "payload_too_large" });
});
