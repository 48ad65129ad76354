/** Arrays of numbers and other elements of one size: numpy's, as they travel. */

import { endianness } from "node:os";

import { SnakepitError } from "./errors.js";

const MAX_DTYPE_DEPTH = 16;
const MAX_DIMENSIONS = 64;
const NATIVE = endianness() === "LE" ? "<" : ">";
const PLAIN_DTYPE = /^[<>|](?:b1|[iufc]\d{1,2}|[SUV]\d{1,10}|[mM]8(?:\[[^\]]{1,32}\])?)$/;
const UTF32_BYTES = 4;

/** The typed array for elements of a dtype, where JavaScript has one. */
const TYPED_ARRAYS = {
  "|b1": Uint8Array,
  "|i1": Int8Array,
  "|u1": Uint8Array,
  [`${NATIVE}i2`]: Int16Array,
  [`${NATIVE}u2`]: Uint16Array,
  [`${NATIVE}i4`]: Int32Array,
  [`${NATIVE}u4`]: Uint32Array,
  [`${NATIVE}i8`]: BigInt64Array,
  [`${NATIVE}u8`]: BigUint64Array,
  [`${NATIVE}f4`]: Float32Array,
  [`${NATIVE}f8`]: Float64Array,
};

// The later of two counts: a Uint8Array holds numbers before it holds truth values.
const DTYPES = new Map(Object.entries(TYPED_ARRAYS).map(([dtype, kind]) => [kind, dtype]));
DTYPES.set(Uint8ClampedArray, "|u1");

/**
 * An array of any number of dimensions.
 *
 * - `dtype`: numpy's name of the elements' type, such as `"<f8"`; an array of fields for structured
 *   types. `shape`: the sizes. `order`: `"C"` (last index fastest) or `"F"`.
 * - `bytes`: the elements, without gaps.
 */
export class NdArray {
  constructor(dtype, shape, bytes, order = "C") {
    Object.assign(this, { dtype, shape, bytes, order });
  }

  /**
   * The array with the elements of a typed array; of one dimension, unless `shape` says otherwise.
   *
   * @throws {RangeError} the shape has another number of elements.
   */
  static of(elements, shape = [elements.length]) {
    const size = shape.reduce((product, length) => product * length, 1);
    if (size !== elements.length) {
      throw new RangeError(`${elements.length} elements do not fill the shape [${shape}]`);
    }
    const bytes = new Uint8Array(elements.buffer, elements.byteOffset, elements.byteLength);
    return new NdArray(DTYPES.get(elements.constructor), shape, bytes);
  }

  /** The elements in their order as a typed array, or undefined when there is none for `dtype`. */
  get elements() {
    const kind = TYPED_ARRAYS[this.dtype];
    if (kind === undefined) return undefined;
    const width = kind.BYTES_PER_ELEMENT;
    const { buffer, byteOffset, byteLength } =
      this.bytes.byteOffset % width === 0 ? this.bytes : new Uint8Array(this.bytes);
    return new kind(buffer, byteOffset, byteLength / width);
  }
}

/** A single element for which JavaScript has no number: a date of numpy's, for example. */
export class ArrayScalar extends NdArray {}

/** Whether `value` is a typed array that is sent as an array; a Uint8Array is sent as bytes. */
export function isTypedArray(value) {
  return DTYPES.has(value?.constructor) && !(value instanceof Uint8Array);
}

/**
 * Check the head of an array that came; return how many bytes its elements have.
 *
 * @throws {SnakepitError} `decode_error`
 */
export function sizeOfElements(dtype, shape, order) {
  if (!isShape(shape) || (order !== "C" && order !== "F")) {
    throw refusal("its shape or order is none");
  }
  return shape.reduce((product, size) => product * size, itemSize(dtype, 0));
}

function itemSize(dtype, depth) {
  if (typeof dtype === "string") return plainSize(dtype);
  if (!Array.isArray(dtype) || dtype.length === 0 || depth > MAX_DTYPE_DEPTH) {
    throw refusal("its dtype is none");
  }
  return dtype.reduce((size, field) => size + fieldSize(field, depth), 0);
}

function fieldSize(field, depth) {
  const isField = Array.isArray(field) && (field.length === 2 || field.length === 3);
  if (!isField || !isName(field[0])) throw refusal("a field of its dtype is none");
  const shape = field[2] ?? [];
  if (!isShape(shape)) throw refusal("a field of its dtype has no shape");
  return shape.reduce((product, size) => product * size, itemSize(field[1], depth + 1));
}

function plainSize(dtype) {
  if (!PLAIN_DTYPE.test(dtype)) throw refusal(`its dtype ${dtype.slice(0, 60)} is not known`);
  const size = parseInt(dtype.slice(2), 10) * (dtype[1] === "U" ? UTF32_BYTES : 1);
  if (size === 0) throw refusal("its elements have no size");
  return size;
}

function isShape(shape) {
  return (
    Array.isArray(shape) &&
    shape.length <= MAX_DIMENSIONS &&
    shape.every((size) => Number.isSafeInteger(size) && size >= 0)
  );
}

function isName(name) {
  const parts = Array.isArray(name) ? name : [name];
  return parts.length <= 2 && parts.every((part) => typeof part === "string");
}

function refusal(why) {
  return new SnakepitError(`an array can't be read: ${why}`, { code: "decode_error" });
}
