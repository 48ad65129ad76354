/** Bytes as values: the reverse of encoder.js. Nothing that comes is trusted. */

import { ArrayScalar, NdArray, sizeOfElements } from "./arrays.js";
import { encode } from "./encoder.js";
import { SnakepitError, errorFromWire } from "./errors.js";
import { Ext, MAX_DEPTH, MAX_OBJECTS } from "./limits.js";
import { isPlainObject } from "./plain.js";
import {
  Complex,
  DateTime,
  Decimal,
  FrozenSet,
  Path,
  PlainDate,
  PlainTime,
  TimeDelta,
  Tuple,
  Uuid,
} from "./types.js";

const ALIGNMENT = 16;

/**
 * The value in `bytes`.
 *
 * @throws {SnakepitError} `decode_error`: they are not exactly one valid value; no other error.
 */
export function decode(bytes) {
  const decoder = new Decoder(bytes);
  try {
    const value = decoder.value();
    decoder.end();
    return value;
  } catch (error) {
    if (error instanceof SnakepitError && error.code === "decode_error") throw error;
    // That of an exception's map, or one of the runtime's own parsers.
    throw refusal(`the host sent no valid value: ${error.message}`, error);
  }
}

/** What a mark is until its content has been read. */
class Mark {
  constructor(kind) {
    this.kind = kind;
  }
}

class Decoder {
  #bytes;
  #at = 0;
  #depth = 0;
  #objects = 0;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  end() {
    if (this.#at !== this.#bytes.length) throw refusal("there are bytes after the value");
  }

  value() {
    const type = this.#byte();
    if (type < 0x80) return type;
    if (type < 0x90) return this.#map(type & 0x0f);
    if (type < 0xa0) return this.#array(type & 0x0f);
    if (type < 0xc0) return this.#text(type & 0x1f);
    if (type >= 0xe0) return type - 0x100;
    const read = READERS[type];
    if (read === undefined) throw refusal(`there is no type ${type.toString(16)}`);
    return read(this);
  }

  text(width) {
    return this.#text(this.unsigned(width));
  }

  bin(width) {
    return new Uint8Array(this.take(this.unsigned(width)));
  }

  array(width) {
    return this.#array(this.unsigned(width));
  }

  map(width) {
    return this.#map(this.unsigned(width));
  }

  unsigned(width) {
    return this.take(width).readUIntBE(0, width);
  }

  extension(size) {
    this.#count();
    const code = this.take(1).readInt8();
    const read = EXTENSIONS[code];
    if (read === undefined) throw refusal(`extension type ${code} is not known here`);
    return read(this.take(size));
  }

  take(size) {
    const end = this.#at + size;
    if (end > this.#bytes.length) throw refusal("it ends in the middle");
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  #byte() {
    return this.take(1)[0];
  }

  #text(size) {
    return textOf(this.take(size));
  }

  #array(size) {
    this.#enter(size);
    const items = [];
    for (let index = 0; index < size; index++) items.push(this.value());
    this.#depth -= 1;
    return items;
  }

  #map(size) {
    this.#enter(2 * size);
    const entries = [];
    const keys = new Set();
    for (let index = 0; index < size; index++) {
      const key = this.#key(size);
      entries.push([key, this.value()]);
      keys.add(identityOf(key));
    }
    this.#depth -= 1;
    if (keys.size < size) throw refusal("a map has two equal keys");
    const [first] = entries;
    if (first?.[0] instanceof Mark) return CONTENTS[first[0].kind](first[1]);
    return mapOf(entries);
  }

  /** A mark may be the only key of a map, and nothing else. */
  #key(size) {
    const marked = size === 1 && this.#mark();
    return marked || this.value();
  }

  #mark() {
    const [type, length, code] = this.#bytes.subarray(this.#at, this.#at + 3);
    if (type !== 0xc7 || length !== 0 || !(code in CONTENTS)) return undefined;
    this.#count();
    this.#at += 3;
    return new Mark(code);
  }

  #enter(size) {
    this.#count();
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH) throw refusal(`it is nested more than ${MAX_DEPTH} levels deep`);
    // Each item has a byte at least: a count is not believed before memory is taken for it.
    if (size > this.#bytes.length - this.#at) throw refusal("it ends in the middle");
  }

  #count() {
    this.#objects += 1;
    if (this.#objects > MAX_OBJECTS) {
      throw refusal(`it has more than ${MAX_OBJECTS} arrays, maps and extensions`);
    }
  }
}

const READERS = {
  0xc0: () => null,
  0xc2: () => false,
  0xc3: () => true,
  0xc4: (decoder) => decoder.bin(1),
  0xc5: (decoder) => decoder.bin(2),
  0xc6: (decoder) => decoder.bin(4),
  0xc7: (decoder) => decoder.extension(decoder.unsigned(1)),
  0xc8: (decoder) => decoder.extension(decoder.unsigned(2)),
  0xc9: (decoder) => decoder.extension(decoder.unsigned(4)),
  0xca: (decoder) => decoder.take(4).readFloatBE(),
  0xcb: (decoder) => decoder.take(8).readDoubleBE(),
  0xcc: (decoder) => decoder.unsigned(1),
  0xcd: (decoder) => decoder.unsigned(2),
  0xce: (decoder) => decoder.unsigned(4),
  0xcf: (decoder) => integerOf(decoder.take(8).readBigUInt64BE()),
  0xd0: (decoder) => decoder.take(1).readInt8(),
  0xd1: (decoder) => decoder.take(2).readInt16BE(),
  0xd2: (decoder) => decoder.take(4).readInt32BE(),
  0xd3: (decoder) => integerOf(decoder.take(8).readBigInt64BE()),
  0xd4: (decoder) => decoder.extension(1),
  0xd5: (decoder) => decoder.extension(2),
  0xd6: (decoder) => decoder.extension(4),
  0xd7: (decoder) => decoder.extension(8),
  0xd8: (decoder) => decoder.extension(16),
  0xd9: (decoder) => decoder.text(1),
  0xda: (decoder) => decoder.text(2),
  0xdb: (decoder) => decoder.text(4),
  0xdc: (decoder) => decoder.array(2),
  0xdd: (decoder) => decoder.array(4),
  0xde: (decoder) => decoder.map(2),
  0xdf: (decoder) => decoder.map(4),
};

const EXTENSIONS = {
  [Ext.TIMESTAMP]: timestampOf,
  [Ext.BIG_INT]: bigIntOf,
  [Ext.DATETIME]: (payload) => zoned(DateTime, DATETIME_TEXT, payload),
  [Ext.DATE]: (payload) => new PlainDate(matching(DATE_TEXT, textOf(payload))),
  [Ext.TIME]: (payload) => zoned(PlainTime, TIME_TEXT, payload),
  [Ext.TIMEDELTA]: timeDeltaOf,
  [Ext.DECIMAL]: (payload) => new Decimal(matching(DECIMAL_TEXT, textOf(payload))),
  [Ext.UUID]: (payload) => new Uuid(new Uint8Array(exactly(16, payload))),
  [Ext.PATH]: (payload) => new Path(new Uint8Array(payload)),
  [Ext.COMPLEX]: complexOf,
  [Ext.ARRAY]: (payload) => arrayOf(NdArray, payload),
  [Ext.ARRAY_SCALAR]: (payload) => arrayOf(ArrayScalar, payload),
};

const CONTENTS = {
  [Ext.TUPLE]: (content) => Tuple.from(items(content)),
  [Ext.SET]: (content) => setOf(Set, content),
  [Ext.FROZENSET]: (content) => setOf(FrozenSet, content),
  [Ext.EXCEPTION]: errorFromWire,
};

// A TextDecoder of its own options: a byte order mark is text like any other.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function textOf(bytes) {
  return utf8.decode(bytes);
}

function integerOf(value) {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function bigIntOf(payload) {
  if (payload.length === 0) throw refusal("an integer has no bytes");
  return integerOf(BigInt.asIntN(8 * payload.length, BigInt(`0x${payload.toString("hex")}`)));
}

const DATE_TEXT = /^\d{4}-\d\d-\d\d$/;
const TIME_TEXT = /^\d\d:\d\d:\d\d(\.\d{6})?$/;
const DATETIME_TEXT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?$/;
const DECIMAL_TEXT = /^-?(s?NaN\d*|Infinity|(\d+\.?\d*|\.\d+)(E[+-]?\d+)?)$/i;

function matching(pattern, text) {
  if (!pattern.test(text)) throw refusal(`${JSON.stringify(text.slice(0, 60))} is no such value`);
  return text;
}

function zoned(Kind, pattern, payload) {
  const [text, offset, zone, fold] = parts(payload, 4);
  const valid =
    typeof text === "string" &&
    (offset === null || Number.isSafeInteger(offset)) &&
    (zone === null || typeof zone === "string") &&
    (fold === 0 || fold === 1);
  if (!valid) throw refusal("a date or time has a part of the wrong type");
  return new Kind(matching(pattern, text), { offset, zone, fold });
}

function timeDeltaOf(payload) {
  const numbers = parts(payload, 3);
  if (!numbers.every(Number.isSafeInteger)) {
    throw refusal("a duration has a part that is no integer");
  }
  return new TimeDelta(...numbers);
}

function parts(payload, count) {
  const found = decode(payload);
  if (!Array.isArray(found) || found.length !== count) {
    throw refusal("a date, time or duration has the wrong number of parts");
  }
  return found;
}

/** msgpack's own: 4 bytes of seconds; 30 bits of nanoseconds, 34 of seconds; or 4 and 8 bytes. */
function timestampOf(payload) {
  const [nanoseconds, seconds] = timestampParts(payload);
  const moment = new Date(seconds * 1000);
  const text = moment.toISOString().slice(0, 19);
  const fraction = String(Math.floor(nanoseconds / 1000)).padStart(6, "0");
  return new DateTime(nanoseconds < 1000 ? text : `${text}.${fraction}`, { offset: 0 });
}

function timestampParts(payload) {
  switch (payload.length) {
    case 4:
      return [0, payload.readUInt32BE()];
    case 8: {
      const both = payload.readBigUInt64BE();
      return [Number(both >> 34n), Number(both & (2n ** 34n - 1n))];
    }
    default:
      return [exactly(12, payload).readUInt32BE(), Number(payload.readBigInt64BE(4))];
  }
}

function complexOf(payload) {
  return new Complex(exactly(16, payload).readDoubleBE(0), payload.readDoubleBE(8));
}

function exactly(size, payload) {
  if (payload.length !== size) throw refusal(`it has ${payload.length} bytes instead of ${size}`);
  return payload;
}

function arrayOf(Kind, payload) {
  const end = 4 + payload.readUInt32LE(0);
  const head = decode(payload.subarray(4, end));
  if (!Array.isArray(head) || head.length !== 3) throw refusal("an array has no valid head");
  const [dtype, shape, order] = head;
  const start = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
  // A copy: views of numbers need them at a multiple of their size.
  const bytes = new Uint8Array(payload.subarray(start));
  if (bytes.length !== sizeOfElements(dtype, shape, order)) {
    throw refusal("an array has not as many elements as its shape says");
  }
  return new Kind(dtype, shape, bytes, order);
}

function items(content) {
  if (!Array.isArray(content)) throw refusal("a tuple or set is no array");
  return content;
}

function setOf(Kind, content) {
  if (new Set(items(content).map(identityOf)).size < content.length) {
    throw refusal("a set has two equal elements");
  }
  return new Kind(content);
}

const OWN_FIELD = { enumerable: true, writable: true, configurable: true };

/** An object, if all keys are texts; else a Map. */
function mapOf(entries) {
  if (!entries.every(([key]) => typeof key === "string")) return new Map(entries);
  const result = {};
  for (const [key, value] of entries) {
    if (key === "__proto__") Object.defineProperty(result, key, { ...OWN_FIELD, value });
    else result[key] = value;
  }
  return result;
}

/**
 * Something that is the same for equal keys, as Python compares them: 1, 1.0 and true are equal.
 *
 * @throws {SnakepitError} `decode_error`: the value can't be a key, or an element of a set.
 */
function identityOf(key) {
  switch (typeof key) {
    case "string":
      return `text ${key}`;
    case "boolean":
      return `${Number(key)}`;
    case "number":
      return Number.isInteger(key) ? `${BigInt(key)}` : `${key}`;
    case "bigint":
      return `${key}`;
    default:
      return key === null || key instanceof Mark ? key : identityOfObject(key);
  }
}

function identityOfObject(key) {
  if (key instanceof Tuple) return JSON.stringify(key.map(identityOf));
  if (key instanceof FrozenSet) return `set ${JSON.stringify([...key].map(identityOf).sort())}`;
  if (Array.isArray(key) || key instanceof Map || key instanceof Set || key instanceof NdArray) {
    throw refusal("a key is an array, a map or a set");
  }
  if (isPlainObject(key)) throw refusal("a key is a map");
  return `${key.constructor.name} ${encode(key).toString("hex")}`;
}

function refusal(message, cause) {
  return new SnakepitError(message, { code: "decode_error", outcome: "unknown", cause });
}
