/** Values as bytes: msgpack with the extension types of PROTOCOL.md. */

import { ArrayScalar, NdArray, isTypedArray } from "./arrays.js";
import { SnakepitError, errorToWire } from "./errors.js";
import { Ext, MAX_DEPTH } from "./limits.js";
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

const FIRST_BYTES = 256;
const ALIGNMENT = 16;
const HALF_CHARACTER = /\p{Surrogate}/u;
const NAMES_SHOWN = 20;
const FIXEXT = { 1: 0xd4, 2: 0xd5, 4: 0xd6, 8: 0xd7, 16: 0xd8 };

/**
 * The bytes of a value.
 *
 * @throws {SnakepitError} `encode_error`: a value inside does not travel; the message has its path.
 */
export function encode(value) {
  const encoder = new Encoder(["value"]);
  encoder.value(value);
  return encoder.bytes();
}

/** The bytes of an array of `fields`, whose `names` begin the paths in messages. */
export function encodeFields(fields, names) {
  const encoder = new Encoder([]);
  encoder.array(fields, names);
  return encoder.bytes();
}

class Encoder {
  #buffer = Buffer.allocUnsafe(FIRST_BYTES);
  #length = 0;
  #depth = 0;
  #path;

  constructor(path) {
    this.#path = path;
  }

  bytes() {
    return this.#buffer.subarray(0, this.#length);
  }

  value(value) {
    switch (typeof value) {
      case "string":
        return this.text(value);
      case "number":
        return this.#number(value);
      case "bigint":
        return this.#bigint(value);
      case "boolean":
        return this.#byte(value ? 0xc3 : 0xc2);
      case "undefined":
        return this.#byte(0xc0);
      case "object":
        return value === null ? this.#byte(0xc0) : this.#object(value);
      default:
        throw this.#refusal(`is a ${typeof value}`);
    }
  }

  text(value) {
    if (HALF_CHARACTER.test(value)) throw this.#refusal("is text with half a character");
    const size = Buffer.byteLength(value);
    if (size < 32) this.#byte(0xa0 | size);
    else this.#size(size, [0xd9, 0xda, 0xdb]);
    this.#reserve(size);
    this.#length += this.#buffer.write(value, this.#length);
  }

  array(items, names) {
    if (items.length < 16) this.#byte(0x90 | items.length);
    else this.#size(items.length, [undefined, 0xdc, 0xdd]);
    this.#inside(() => {
      // Not forEach: it leaves out the holes of an array.
      for (let index = 0; index < items.length; index++) {
        this.#item(names?.[index] ?? index, items[index]);
      }
    });
  }

  /** A map of `[key, value]` pairs. */
  map(entries) {
    if (entries.length < 16) this.#byte(0x80 | entries.length);
    else this.#size(entries.length, [undefined, 0xde, 0xdf]);
    this.#inside(() => {
      for (const [key, item] of entries) {
        if (isUnfitForKey(key)) throw this.#refusal("has a key that is an array, a map or a set");
        this.value(key);
        this.#item(key, item);
      }
    });
  }

  /** The map of one mark, which makes a tuple, a set or an exception of its content. */
  mark(kind, content) {
    this.#byte(0x81);
    this.#inside(() => {
      this.extension(kind, Buffer.alloc(0));
      this.value(content);
    });
  }

  set(kind, elements) {
    if (elements.some(isUnfitForKey)) {
      throw this.#refusal("is a set with an element that is an array, a map or a set");
    }
    this.mark(kind, elements);
  }

  extension(kind, payload) {
    const size = payload.length;
    if (size in FIXEXT) this.#byte(FIXEXT[size]);
    else this.#size(size, [0xc7, 0xc8, 0xc9]);
    this.#byte(kind);
    this.#raw(payload);
  }

  bin(bytes) {
    this.#size(bytes.length, [0xc4, 0xc5, 0xc6]);
    this.#raw(bytes);
  }

  #object(value) {
    if (Array.isArray(value) && value.constructor === Array) return this.array(value);
    if (isPlainObject(value)) return this.map(Object.entries(value));
    const found = WRITERS.find(([kind]) => value instanceof kind);
    if (found !== undefined) return found[1](this, value);
    if (isTypedArray(value)) return writeArray(this, NdArray.of(value));
    throw this.#refusal(`is an instance of ${value.constructor?.name}; send plain data instead`);
  }

  #number(value) {
    if (Number.isSafeInteger(value) && !Object.is(value, -0)) return this.#integer(value);
    this.#byte(0xcb);
    this.#reserve(8);
    this.#length = this.#buffer.writeDoubleBE(value, this.#length);
  }

  #integer(value) {
    if (value >= 0 ? value < 128 : value >= -32) return this.#byte(value & 0xff);
    if (value >= 0 ? value < 2 ** 32 : value >= -(2 ** 31)) return this.#shortInteger(value);
    return this.#longInteger(BigInt(value));
  }

  #shortInteger(value) {
    this.#reserve(5);
    const bytes = widthOf(value);
    const [type, write] = value >= 0 ? UNSIGNED[bytes] : SIGNED[bytes];
    this.#byte(type);
    this.#length = this.#buffer[write](value, this.#length);
  }

  #longInteger(value) {
    this.#reserve(9);
    this.#byte(value >= 0n ? 0xcf : 0xd3);
    const write = value >= 0n ? "writeBigUInt64BE" : "writeBigInt64BE";
    this.#length = this.#buffer[write](value, this.#length);
  }

  #bigint(value) {
    if (Number.isSafeInteger(Number(value))) return this.#integer(Number(value));
    if (value >= -(2n ** 63n) && value < 2n ** 64n) return this.#longInteger(value);
    return this.extension(Ext.BIG_INT, bytesOfBigInt(value));
  }

  /** An item of a container, whose name is part of the path in messages. */
  #item(name, item) {
    this.#path.push(name);
    this.value(item);
    this.#path.pop();
  }

  #inside(write) {
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH) {
      throw this.#refusal(`is nested more than ${MAX_DEPTH} levels deep, or contains itself`);
    }
    write();
    this.#depth -= 1;
  }

  #size(size, [for8, for16, for32]) {
    this.#reserve(5);
    if (size < 0x100 && for8 !== undefined) {
      this.#byte(for8);
      this.#byte(size);
    } else if (size < 0x10000) {
      this.#byte(for16);
      this.#length = this.#buffer.writeUInt16BE(size, this.#length);
    } else {
      this.#byte(for32);
      this.#length = this.#buffer.writeUInt32BE(size, this.#length);
    }
  }

  #byte(byte) {
    this.#reserve(1);
    this.#buffer[this.#length++] = byte;
  }

  #raw(bytes) {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #reserve(size) {
    const needed = this.#length + size;
    if (needed <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, 2 * this.#buffer.length));
    grown.set(this.bytes());
    this.#buffer = grown;
  }

  #refusal(what) {
    const path = pathText(this.#path);
    return new SnakepitError(`${path} ${what}`, { code: "encode_error", details: { path } });
  }
}

/** The part of a path that a reader needs: its start, and not a thousand levels of it. */
function pathText([root, ...names]) {
  const shown = names.slice(0, NAMES_SHOWN).map(nameText);
  return [root, ...shown, names.length > shown.length ? "..." : ""].join("");
}

function nameText(name) {
  return typeof name === "string" ? `.${name}` : `[${String(name)}]`;
}

/** Type and method for a number of so many bytes. */
const UNSIGNED = {
  1: [0xcc, "writeUInt8"],
  2: [0xcd, "writeUInt16BE"],
  4: [0xce, "writeUInt32BE"],
};
const SIGNED = { 1: [0xd0, "writeInt8"], 2: [0xd1, "writeInt16BE"], 4: [0xd2, "writeInt32BE"] };

/** Of the bytes that a number within 32 bits takes. */
function widthOf(value) {
  const values = value >= 0 ? value : 2 * -value - 1;
  if (values < 0x100) return 1;
  return values < 0x10000 ? 2 : 4;
}

function bytesOfBigInt(value) {
  let size = 8;
  while (BigInt.asIntN(8 * size, value) !== value) size += 1;
  const hex = BigInt.asUintN(8 * size, value).toString(16);
  return Buffer.from(hex.padStart(2 * size, "0"), "hex");
}

function isUnfitForKey(key) {
  if (typeof key !== "object" || key === null) return false;
  const isArray = Array.isArray(key) && !(key instanceof Tuple);
  const isSet = key instanceof Set && !(key instanceof FrozenSet);
  return isArray || isSet || key instanceof Map || isPlainObject(key);
}

// --- the types of JavaScript, and those of types.js ----------------------------------------------

function writeArray(encoder, array, kind = Ext.ARRAY) {
  const head = encode([array.dtype, array.shape, array.order]);
  const start = Math.ceil((4 + head.length) / ALIGNMENT) * ALIGNMENT;
  const payload = Buffer.alloc(start + array.bytes.length);
  payload.writeUInt32LE(head.length, 0);
  payload.set(head, 4);
  payload.set(array.bytes, start);
  encoder.extension(kind, payload);
}

function writeDateTime(encoder, { text, offset, zone, fold }, kind) {
  encoder.extension(kind, encode([text, offset, zone, fold]));
}

function writeComplex(encoder, { real, imag }) {
  const payload = Buffer.allocUnsafe(16);
  payload.writeDoubleBE(real, 0);
  payload.writeDoubleBE(imag, 8);
  encoder.extension(Ext.COMPLEX, payload);
}

/** A derived class stands before its base. */
const WRITERS = [
  [Uint8Array, (encoder, value) => encoder.bin(value)],
  [ArrayBuffer, (encoder, value) => encoder.bin(new Uint8Array(value))],
  [Map, (encoder, value) => encoder.map([...value])],
  [Tuple, (encoder, value) => encoder.mark(Ext.TUPLE, Array.from(value))],
  [Array, (encoder, value) => encoder.array(Array.from(value))],
  [FrozenSet, (encoder, value) => encoder.set(Ext.FROZENSET, [...value])],
  [Set, (encoder, value) => encoder.set(Ext.SET, [...value])],
  [Date, (encoder, value) => writeDateTime(encoder, DateTime.from(value), Ext.DATETIME)],
  [DateTime, (encoder, value) => writeDateTime(encoder, value, Ext.DATETIME)],
  [PlainTime, (encoder, value) => writeDateTime(encoder, value, Ext.TIME)],
  [PlainDate, (encoder, value) => encoder.extension(Ext.DATE, Buffer.from(value.text))],
  [Decimal, (encoder, value) => encoder.extension(Ext.DECIMAL, Buffer.from(value.text))],
  [Uuid, (encoder, value) => encoder.extension(Ext.UUID, value.bytes)],
  [Path, (encoder, value) => encoder.extension(Ext.PATH, value.bytes)],
  [Complex, writeComplex],
  [ArrayScalar, (encoder, value) => writeArray(encoder, value, Ext.ARRAY_SCALAR)],
  [NdArray, (encoder, value) => writeArray(encoder, value)],
  [
    TimeDelta,
    (encoder, { days, seconds, microseconds }) =>
      encoder.extension(Ext.TIMEDELTA, encode([days, seconds, microseconds])),
  ],
  [Error, (encoder, value) => encoder.mark(Ext.EXCEPTION, errorToWire(value))],
];
