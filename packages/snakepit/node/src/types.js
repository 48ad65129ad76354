/**
 * The values that JavaScript has no type for, as they arrive and can be sent.
 *
 * They keep everything that came, so what a command hands back unchanged is what it was given.
 */

/** A Python tuple. An array in every other way; what its methods return are plain arrays. */
export class Tuple extends Array {
  static get [Symbol.species]() {
    return Array;
  }
}

/** A Python frozenset. It may be the key of a map, or an element of a set. */
export class FrozenSet extends Set {}

/**
 * A moment, or a local time without a zone.
 *
 * - `text`: ISO 8601 local time, to the second or the microsecond: `2024-02-29T12:30:00.000001`.
 * - `offset`: microseconds east of UTC, or null for a local time.
 * - `zone`: the IANA name, or null. `fold`: 1 for the second of two equal local times, else 0.
 */
export class DateTime {
  constructor(text, { offset = null, zone = null, fold = 0 } = {}) {
    Object.assign(this, { text, offset, zone, fold });
  }

  /** The moment in UTC; that of a `Date`, which has milliseconds and no zone. */
  static from(date) {
    return new DateTime(date.toISOString().replace(/Z$/, "000"), { offset: 0 });
  }

  /**
   * The same moment as a `Date`, cut to the millisecond.
   *
   * @throws {RangeError} it has no zone, so it is no moment.
   */
  toDate() {
    if (this.offset === null) throw new RangeError(`${this.text} has no zone, so it is no moment`);
    return new Date(Date.parse(`${this.text.slice(0, 23)}Z`) - this.offset / 1000);
  }

  toString() {
    return this.text;
  }
}

/** A day: `text` is ISO 8601, `2024-02-29`. */
export class PlainDate {
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }
}

/** A time of day, with the fields of `DateTime`. */
export class PlainTime {
  constructor(text, { offset = null, zone = null, fold = 0 } = {}) {
    Object.assign(this, { text, offset, zone, fold });
  }

  toString() {
    return this.text;
  }
}

/** A duration as Python has it: `seconds` below 86 400 and `microseconds`, never negative. */
export class TimeDelta {
  constructor(days, seconds = 0, microseconds = 0) {
    Object.assign(this, { days, seconds, microseconds });
  }

  /** The same duration, as a number of seconds. */
  toSeconds() {
    return this.days * 86_400 + this.seconds + this.microseconds / 1e6;
  }
}

/** A decimal number of any precision, as text. */
export class Decimal {
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }
}

/** A UUID: 16 bytes, written as usual. */
export class Uuid {
  constructor(bytes) {
    this.bytes = bytes;
  }

  static parse(text) {
    return new Uuid(new Uint8Array(Buffer.from(text.replaceAll("-", ""), "hex")));
  }

  toString() {
    const hex = Buffer.from(this.bytes).toString("hex");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }
}

/** A path of the file system, which is bytes. */
export class Path {
  constructor(path) {
    this.bytes = typeof path === "string" ? new Uint8Array(Buffer.from(path)) : path;
  }

  toString() {
    return Buffer.from(this.bytes).toString();
  }
}

/** A complex number. */
export class Complex {
  constructor(real, imag) {
    Object.assign(this, { real, imag });
  }
}
