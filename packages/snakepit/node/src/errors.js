/** The one class of errors, and how any error crosses the process boundary. */

import { inspect } from "node:util";

import { isPlainObject } from "./plain.js";

const MESSAGE_LIMIT = 16_384;
const TRACEBACK_LIMIT = 8_192;
const CAUSES_SENT = 8;
const CAUSES_ACCEPTED = 32;
const OUTCOMES = new Set(["none", "unknown", "done"]);

/**
 * An error that says what became of a call: raised by this library, or received from the host.
 *
 * - `code`: the stable name of its kind, such as `"unknown_command"`; all are in docs/errors.md.
 * - `outcome`: `"none"` (nothing happened), `"unknown"` or `"done"`.
 * - `retryable`: whether sending the same call again is safe.
 * - `details`: plain data. `type`: the class where it was raised; `traceback`: its stack there.
 * - `fromHost`: whether it was received.
 */
export class SnakepitError extends Error {
  constructor(message, { code, outcome = "none", retryable = false, details = {}, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "SnakepitError";
    this.code = code ?? "snakepit_error";
    this.type = camelCase(this.code);
    this.outcome = outcome;
    this.retryable = retryable;
    this.details = details;
    this.traceback = null;
    this.fromHost = false;
  }
}

/** Whatever was thrown, as the map that travels. */
export function errorToWire(thrown) {
  const chain = [thrown];
  while (chain.length <= CAUSES_SENT) {
    const cause = chain.at(-1)?.cause;
    if (cause === undefined || cause === null || chain.includes(cause)) break;
    chain.push(cause);
  }
  return chain.reduceRight((cause, link) => ({ ...linkToWire(link), cause }), null);
}

/**
 * As `errorToWire`, for what the code of a command let through. An error of the host says what
 * became of the host's call; this call's own code has run, so it must not look as if it had not.
 */
export function raisedToWire(thrown) {
  const wire = errorToWire(thrown);
  const passedOn = thrown instanceof SnakepitError && thrown.fromHost;
  return passedOn ? { ...wire, outcome: "done", retryable: false } : wire;
}

function linkToWire(thrown) {
  if (thrown instanceof SnakepitError) {
    return {
      code: thrown.code,
      type: thrown.type,
      message: bounded(thrown.message, MESSAGE_LIMIT),
      outcome: thrown.outcome,
      retryable: thrown.retryable,
      details: thrown.details,
      traceback: thrown.fromHost ? thrown.traceback : bounded(thrown.stack, TRACEBACK_LIMIT),
    };
  }
  const isError = thrown instanceof Error;
  const type = isError ? read(thrown, "name", MESSAGE_LIMIT) : typeof thrown;
  return {
    code: "remote_error",
    type,
    message: isError ? read(thrown, "message", MESSAGE_LIMIT) : bounded(thrown, MESSAGE_LIMIT),
    outcome: "done",
    retryable: false,
    details: { remote_type: type, builtin: null },
    traceback: isError ? read(thrown, "stack", TRACEBACK_LIMIT) : null,
  };
}

/** A field of any error as text. Reading it may run its own code, which must not hide the error. */
function read(error, field, limit) {
  try {
    return bounded(error[field], limit);
  } catch {
    return `<the ${field} of the error can't be read>`;
  }
}

/** Anything as text: cut, and without the half characters that UTF-8 has no bytes for. */
function bounded(value, limit) {
  const text = typeof value === "string" ? value : inspect(value, { customInspect: false });
  return Buffer.from(text.slice(0, limit)).toString();
}

const FIELDS = {
  code: isText,
  type: isText,
  message: isText,
  outcome: (value) => OUTCOMES.has(value),
  retryable: (value) => typeof value === "boolean",
  details: (value) => isPlainObject(value) || value instanceof Map,
  traceback: (value) => value === null || isText(value),
};

/**
 * The error that a map describes, with its causes.
 *
 * @throws {SnakepitError} `protocol_error`: it is no such map.
 */
export function errorFromWire(wire) {
  const links = [];
  for (let link = wire; link !== null || links.length === 0; link = link.cause) {
    if (links.length > CAUSES_ACCEPTED) throw malformed(`it has over ${CAUSES_ACCEPTED} causes`);
    links.push(checkedLink(link));
  }
  return links.reduceRight((cause, link) => received(link, cause), undefined);
}

function checkedLink(wire) {
  if (!isPlainObject(wire)) throw malformed("it is no map");
  for (const [field, isValid] of Object.entries(FIELDS)) {
    if (!isValid(wire[field])) throw malformed(`it has no valid ${field}`);
  }
  if (wire.cause === undefined) throw malformed("it has no cause, not even nil");
  return wire;
}

function received(wire, cause) {
  const { code, outcome, retryable, details } = wire;
  const error = new SnakepitError(wire.message, { code, outcome, retryable, details, cause });
  error.type = wire.type;
  error.traceback = wire.traceback;
  error.fromHost = true;
  return error;
}

function malformed(why) {
  return new SnakepitError(`an error from the host can't be read: ${why}`, {
    code: "protocol_error",
    outcome: "unknown",
  });
}

function isText(value) {
  return typeof value === "string";
}

function camelCase(code) {
  return code.replace(/(?:^|_)([a-z])/g, (_, letter) => letter.toUpperCase());
}
