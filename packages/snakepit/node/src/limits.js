/** The extension types and the limits of PROTOCOL.md that both directions share. */

export const Ext = Object.freeze({
  TIMESTAMP: -1,
  BIG_INT: 1,
  DATETIME: 2,
  DATE: 3,
  TIME: 4,
  TIMEDELTA: 5,
  DECIMAL: 6,
  UUID: 7,
  PATH: 8,
  COMPLEX: 9,
  ARRAY: 10,
  ARRAY_SCALAR: 11,
  TUPLE: 32,
  SET: 33,
  FROZENSET: 34,
  EXCEPTION: 35,
});

/** Arrays and maps inside one another. */
export const MAX_DEPTH = 1024;
/** Arrays, maps and extensions in one body: each byte of such takes up to a hundred in memory. */
export const MAX_OBJECTS = 2 ** 22;
