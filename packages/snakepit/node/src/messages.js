/** The bodies of frames: built from values, and read into them. */

import { decode } from "./decoder.js";
import { encode, encodeFields } from "./encoder.js";
import { SnakepitError } from "./errors.js";
import { Flag, FrameType, encodeFrame } from "./frames.js";
import { isPlainObject } from "./plain.js";

const MOST_ITEMS = 65_536;
const MOST_BYTES = 2 ** 40;

/** A frame whose body has these elements. */
export function messageFrame(type, callId, ...elements) {
  return encodeFrame(type, callId, encode(elements));
}

/**
 * `RESULT`.
 *
 * @throws {SnakepitError} `encode_error`, `payload_too_large`: the value can't travel.
 */
export function resultFrame(callId, value) {
  return encodeFrame(FrameType.RESULT, callId, encodeFields([value], ["result"]));
}

/** `ITEM` with one item; throws as `resultFrame`. */
export function itemFrame(callId, item) {
  return encodeFrame(FrameType.ITEM, callId, encodeFields([[item]], ["items"]));
}

/** `ERROR`; details that can't travel are left out. */
export function errorFrame(callId, wire) {
  try {
    return messageFrame(FrameType.ERROR, callId, wire);
  } catch {
    return messageFrame(FrameType.ERROR, callId, { ...wire, details: {}, cause: null });
  }
}

const CALL_FIELDS = ["command", "args", "timeout", "session", "parent", "credit"];

/** `CALL` of a host function, made by call `parent`; throws as `resultFrame`. */
export function callFrame(callId, { name, args, timeout, session, parent, credit }) {
  const flags = Flag.NESTED | (credit === null ? 0 : Flag.STREAM);
  const fields = [name, args, timeout, session, parent, credit];
  return encodeFrame(FrameType.CALL, callId, encodeFields(fields, CALL_FIELDS), flags);
}

/**
 * The first `count` elements of a body; what a later version appended is left out.
 *
 * @throws {SnakepitError} `protocol_error`, `decode_error`
 */
export function readBody(frame, count) {
  const body = decode(frame.body);
  if (!Array.isArray(body) || body.length < count) {
    throw violation(`the body of a frame of type ${frame.type} is no array of ${count} or more`);
  }
  return body.slice(0, count);
}

/** What a `CALL` asks for; throws as `readBody`. */
export function readCall(frame) {
  const [command, args, timeout, session, parent, credit] = readBody(frame, CALL_FIELDS.length);
  const valid =
    typeof command === "string" &&
    isPlainObject(args) &&
    (timeout === null || typeof timeout === "number") &&
    (session === null || typeof session === "string") &&
    (parent === null || isWhole(parent)) &&
    (credit === null || Array.isArray(credit));
  if (!valid) throw violation(`an element of call ${frame.callId} has the wrong type`);
  const flags = (credit === null ? 0 : Flag.STREAM) | (parent === null ? 0 : Flag.NESTED);
  if (flags !== frame.flags) {
    throw violation(`the flags of call ${frame.callId} contradict its body`);
  }
  return {
    command,
    args,
    timeout,
    session,
    parent: parent === null ? null : BigInt(parent),
    credit: credit === null ? null : checkedCredit(credit),
  };
}

/** What a `CREDIT` grants; throws as `readBody`. */
export function readCredit(frame) {
  return checkedCredit(readBody(frame, 2));
}

/** The call ids in a `RECALL`; throws as `readBody`. */
export function readIds(frame) {
  const [ids] = readBody(frame, 1);
  if (!Array.isArray(ids) || !ids.every(isWhole)) {
    throw violation("RECALL has no array of call ids");
  }
  return ids.map(BigInt);
}

/** The items of an `ITEM`; throws as `readBody`. */
export function readItems(frame) {
  const [items] = readBody(frame, 1);
  if (!Array.isArray(items)) throw violation("ITEM has no array of items");
  return items;
}

/** The error of a frame of the wrong kind or shape. */
export function violation(message) {
  return new SnakepitError(message, { code: "protocol_error", outcome: "unknown" });
}

function checkedCredit([items, bytes]) {
  const valid = isGrant(items, MOST_ITEMS) && isGrant(bytes, MOST_BYTES);
  if (!valid) throw violation(`no credit of ${items} items and ${bytes} bytes can be granted`);
  return { items, bytes };
}

function isGrant(number, most) {
  return Number.isInteger(number) && number >= 1 && number <= most;
}

function isWhole(value) {
  return Number.isInteger(value) || typeof value === "bigint";
}
