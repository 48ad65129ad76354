import assert from "node:assert/strict";
import { test } from "node:test";

import { encode } from "../src/encoder.js";
import { SnakepitError, errorFromWire, errorToWire, raisedToWire } from "../src/errors.js";

test("anything that is thrown travels", () => {
  const cycle = new Error("a cycle");
  cycle.cause = cycle;
  const odd = Object.assign(new Error("x"), { name: 7, message: { toString: null } });
  const thrown = [new RangeError("x"), "text", undefined, null, 5n, Symbol("s"), { a: 1 }];
  for (const value of [...thrown, Object.create(null), cycle, odd, new Error("half \ud800")]) {
    const wire = errorToWire(value);
    encode(wire);
    errorFromWire(wire);
    assert.equal(wire.code, "remote_error");
  }
  assert.equal(errorToWire("text").message, "text");
  assert.equal(errorToWire(new RangeError("x")).type, "RangeError");
});

test("texts are cut, and eight causes are sent", () => {
  let error = new Error("0");
  for (let i = 1; i < 20; i++) error = new Error(`${i}`.repeat(20_000), { cause: error });
  let wire = errorToWire(error);
  assert.equal(wire.message.length, 16_384);
  assert.ok(wire.traceback.length <= 8_192);
  let causes = 0;
  while ((wire = wire.cause) !== null) causes += 1;
  assert.equal(causes, 8);
});

test("an error of this library keeps its code, one of the host says that this call has run", () => {
  const own = new SnakepitError("busy", { code: "worker_busy", retryable: true });
  assert.equal(errorToWire(own).type, "WorkerBusy");
  assert.deepEqual([raisedToWire(own).outcome, raisedToWire(own).retryable], ["none", true]);
  const received = errorFromWire(errorToWire(own));
  assert.ok(received.fromHost);
  const { code, outcome, retryable } = raisedToWire(received);
  assert.deepEqual([code, outcome, retryable], ["worker_busy", "done", false]);
});

test("what is no error map is a violation", () => {
  const good = errorToWire(new Error("x"));
  const bad = [null, "text", [], {}, { ...good, outcome: "perhaps" }, { ...good, details: null }];
  const { cause, ...uncaused } = good;
  assert.equal(cause, null);
  let long = good;
  for (let i = 0; i < 33; i++) long = { ...good, cause: long };
  for (const wire of [...bad, uncaused, long]) {
    assert.throws(() => errorFromWire(wire), { code: "protocol_error" });
  }
  assert.equal(errorFromWire(long.cause).message, "x");
});
