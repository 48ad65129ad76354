/** Serve a snakepit pool from Node; README.md has a first worker. */

export { ArrayScalar, NdArray } from "./arrays.js";
export { SnakepitError } from "./errors.js";
export {
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
export { serve } from "./worker.js";
