import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { decode } from "../src/decoder.js";
import { encode, encodeFields } from "../src/encoder.js";
import {
  ArrayScalar,
  Complex,
  DateTime,
  Decimal,
  FrozenSet,
  NdArray,
  Path,
  PlainDate,
  PlainTime,
  SnakepitError,
  TimeDelta,
  Tuple,
  Uuid,
} from "../src/index.js";

const golden = JSON.parse(
  readFileSync(new URL("../../src/snakepit/testing/golden/values.json", import.meta.url)),
);

/** What a vector of that name is here, once decoded. */
const EXPECTED = {
  nil: null,
  "int 2^31": 2 ** 31,
  "int 2^64-1, the largest msgpack has": 2n ** 64n - 1n,
  "int -2^63, the smallest msgpack has": -(2n ** 63n),
  "big int 2^64": 2n ** 64n,
  "big int -2^71, no spare byte": -(2n ** 71n),
  "big int in more bytes than needed": 255,
  float: 1.5,
  "float NaN": NaN,
  "float minus zero": -0,
  text: "Grüße 🐍",
  bytes: new Uint8Array([0, 255]),
  list: [1, "a", null],
  map: { a: 1, b: [2] },
  "map with keys of several types": new Map([
    [1, "int"],
    [null, "nil"],
    [Tuple.of(1, 2), "tuple"],
    [new Uint8Array([1]), "bytes"],
  ]),
  "tuple in a tuple": Tuple.of(Tuple.of(1)),
  set: new Set([7]),
  frozenset: new FrozenSet(["x"]),
  "datetime, zone, second of two equal local times": new DateTime("2024-10-27T02:30:00", {
    offset: 3_600_000_000,
    zone: "Europe/Paris",
    fold: 1,
  }),
  date: new PlainDate("2024-02-29"),
  time: new PlainTime("23:59:59.999999"),
  timedelta: new TimeDelta(-1, 86399, 999999),
  "decimal with exponent": new Decimal("1E+30"),
  uuid: Uuid.parse("12345678-1234-5678-1234-567812345678"),
  path: new Path("/tmp/ü"),
  complex: new Complex(1.5, -2),
  "array of floats": NdArray.of(new Float64Array([1, 2])),
  "array, column order": new NdArray("|u1", [2, 3], new Uint8Array([1, 2, 3, 4, 5, 6]), "F"),
  "array scalar": new ArrayScalar("<M8[D]", [], new Uint8Array([0x3a, 0x4d, 0, 0, 0, 0, 0, 0])),
  "timestamp of msgpack itself": new DateTime("1970-01-01T00:00:01", { offset: 0 }),
};

function hexOf(text) {
  return Buffer.from(text).toString("hex");
}

function fromHex(hex) {
  return Buffer.from(hex, "hex");
}

/** Arrays show their elements by a typed array, whatever the bytes were cut from. */
function comparable(value) {
  if (!(value instanceof NdArray)) return value;
  return { ...value, kind: value.constructor.name, bytes: [...value.bytes] };
}

for (const vector of golden.vectors) {
  test(`golden: ${vector.name}`, () => {
    const value = decode(fromHex(vector.hex));
    if (vector.sent ?? true) assert.equal(encode(value).toString("hex"), vector.hex);
    if (vector.name in EXPECTED) {
      assert.deepStrictEqual(comparable(value), comparable(EXPECTED[vector.name]));
    }
  });
}

test("every expectation is about a golden vector", () => {
  const names = new Set(golden.vectors.map(({ name }) => name));
  assert.deepEqual(Object.keys(EXPECTED).filter((name) => !names.has(name)), []);
});

for (const vector of golden.refused) {
  test(`golden, refused: ${vector.name}`, () => {
    assert.throws(() => decode(fromHex(vector.hex)), { code: "decode_error" });
  });
}

for (const [name, bytes] of [
  ["an array longer than its bytes", "ddffffffff"],
  ["a map longer than its bytes", "dfffffffff"],
  ["text longer than its bytes", "dbffffffff"],
  ["a type that msgpack never uses", "c1"],
  ["nothing", ""],
  ["a map with true and 1", "82c3010102"],
  ["a set with 1 and 1.0", "81c700219201cb3ff0000000000000"],
  ["a set with an array", "81c700219190"],
  ["a set of sets", "81c700219181c700219101"],
  ["two equal tuples as keys", "8281c7002091010181c70020910102"],
  ["a big int without bytes", "c70001"],
  ["a date of another form", `c70703${hexOf("2024-13")}`],
  ["a datetime with too few parts", "c7020291c0"],
  ["a datetime with its offset in the text", `c7190294b4${hexOf("2024-02-29T12:30:00Z")}c0c000`],
  ["a decimal that is none", `c70306${hexOf("1,5")}`],
  ["a uuid of 15 bytes", "c70f07" + "00".repeat(15)],
  ["a timestamp of 5 bytes", "c705ff0000000000"],
  ["an array of objects", "c7110a0800000093a37c4f389101a1430000000000"],
  ["an array with too few elements", "c7110a0800000093a37c75319105a1430000000001"],
  ["an exception without a code", "81c7002380"],
]) {
  test(`refused: ${name}`, () => {
    assert.throws(() => decode(fromHex(bytes)), { code: "decode_error" });
  });
}

test("what JavaScript has itself is sent as the nearest type", () => {
  const date = new Date("2024-02-29T12:30:00.125Z");
  const cases = [
    [undefined, null],
    [[1, , 3], [1, null, 3]],
    [new Float64Array([1, 2]), NdArray.of(new Float64Array([1, 2]))],
    [new BigInt64Array([-1n]), new NdArray("<i8", [1], new Uint8Array(8).fill(255))],
    [Buffer.from("ab"), new Uint8Array([97, 98])],
    [new Uint8Array([1]).buffer, new Uint8Array([1])],
    [5n, 5],
    [Number.MAX_SAFE_INTEGER + 1, 2 ** 53],
    [Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
    [date, new DateTime("2024-02-29T12:30:00.125000", { offset: 0 })],
  ];
  for (const [sent, expected] of cases) {
    assert.deepStrictEqual(comparable(decode(encode(sent))), comparable(expected));
  }
});

test("numbers keep their size and sign", () => {
  const powers = [5, 7, 8, 15, 16, 31, 32].flatMap((bits) => [2 ** bits - 1, 2 ** bits]);
  for (const edge of [...powers, 2 ** 53 - 1]) {
    for (const number of [edge, -edge, edge + 0.5, BigInt(edge) * 2n ** 60n]) {
      assert.deepStrictEqual(decode(encode(number)), number);
    }
  }
});

test("text, arrays and maps of every size of header", () => {
  for (const size of [0, 15, 16, 31, 32, 255, 256, 65535, 65536]) {
    const text = "ü".repeat(size);
    assert.equal(decode(encode(text)), text);
    const items = Array.from({ length: size }, (_, index) => index);
    assert.deepStrictEqual(decode(encode(items)), items);
    const map = Object.fromEntries(items.map((item) => [`k${item}`, item]));
    assert.deepStrictEqual(decode(encode(map)), map);
    assert.deepStrictEqual(decode(encode(new Uint8Array(size))), new Uint8Array(size));
  }
});

test("what does not travel is refused with its path", () => {
  const args = { items: [0, 1, { client: () => {} }] };
  assert.throws(() => encodeFields(["work", args], ["command", "args"]), {
    code: "encode_error",
    message: "args.items[2].client is a function",
    details: { path: "args.items[2].client" },
  });
  const cycle = [];
  cycle.push(cycle);
  const cases = [
    [Symbol("s"), /is a symbol/],
    [new (class Client {})(), /is an instance of Client/],
    ["\ud800", /half a character/],
    [cycle, /nested more than 1024 levels deep, or contains itself/],
    [new Map([[[1], 2]]), /has a key that is an array/],
    [new Set([{}]), /is a set with an element that is an array, a map or a set/],
  ];
  for (const [value, message] of cases) assert.throws(() => encode([value]), { message });
});

test("a key named __proto__ is a key like any other", () => {
  const value = decode(encode(JSON.parse('{"__proto__": {"polluted": true}}')));
  assert.deepStrictEqual(Object.keys(value), ["__proto__"]);
  assert.equal(value.polluted, undefined);
});

test("an error travels with its causes, and comes back as what it was", () => {
  const cause = new TypeError("no such thing");
  const error = decode(encode(new Error("failed", { cause })));
  assert.ok(error instanceof SnakepitError);
  assert.deepEqual([error.code, error.type, error.message], ["remote_error", "Error", "failed"]);
  assert.deepEqual([error.cause.type, error.cause.message], ["TypeError", "no such thing"]);
  assert.match(error.traceback, /values\.test\.js/);
});

test("a tuple is an array whose methods make plain ones", () => {
  const tuple = decode(encode(Tuple.of(1, 2)));
  assert.ok(tuple instanceof Tuple && Array.isArray(tuple));
  assert.equal(tuple.map((item) => item).constructor, Array);
});

test("a datetime with a zone is a moment, one without is none", () => {
  const paris = new DateTime("2024-10-27T02:30:00.000750", { offset: 3_600_000_000 });
  assert.equal(paris.toDate().toISOString(), "2024-10-27T01:30:00.000Z");
  assert.throws(() => new DateTime("2024-10-27T02:30:00").toDate(), RangeError);
  assert.equal(new TimeDelta(-1, 86_399, 500_000).toSeconds(), -0.5);
});

test("the elements of an array are numbers where JavaScript has the type", () => {
  const grid = NdArray.of(new Int16Array([1, 2, 3, 4, 5, 6]), [2, 3]);
  const came = decode(encode(grid));
  assert.deepStrictEqual([came.dtype, came.shape], ["<i2", [2, 3]]);
  assert.deepStrictEqual(came.elements, new Int16Array([1, 2, 3, 4, 5, 6]));
  assert.equal(new NdArray(">i2", [1], new Uint8Array(2)).elements, undefined);
  const odd = new NdArray("<f8", [1], Buffer.alloc(9).subarray(1));
  assert.deepStrictEqual(odd.elements, new Float64Array(1));
  assert.throws(() => NdArray.of(new Int16Array(6), [4]), RangeError);
});
