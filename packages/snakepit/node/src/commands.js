/** Which functions the host may call, and how each has to be called. */

import { SnakepitError } from "./errors.js";

const STREAMS = new Set(["[object GeneratorFunction]", "[object AsyncGeneratorFunction]"]);

/**
 * The commands in an object: its own functions by name, those that are generators as streams.
 *
 * @throws {SnakepitError} `configuration_error`: there is none, or something else among them.
 */
export function commandsOf(object) {
  const commands = new Map();
  for (const [name, run] of Object.entries(object ?? {})) {
    if (typeof run !== "function") {
      throw misconfigured(`the command ${name} is no function but a ${typeof run}`);
    }
    const streams = STREAMS.has(Object.prototype.toString.call(run));
    commands.set(name, { run: run.bind(object), streams });
  }
  if (commands.size === 0) {
    throw misconfigured("there are no commands; give an object of functions");
  }
  return commands;
}

/**
 * The command a request names.
 *
 * @throws {SnakepitError} `unknown_command`, `streaming_not_supported`
 */
export function selectCommand(commands, { command: name, credit }) {
  const command = commands.get(name);
  if (command === undefined) {
    const known = [...commands.keys()].sort();
    throw new SnakepitError(`there is no command ${name} (known commands: ${known.join(", ")})`, {
      code: "unknown_command",
      details: { command: name, known, hint: null },
    });
  }
  if (command.streams !== (credit !== null)) {
    const method = command.streams ? "execute_stream" : "execute";
    throw new SnakepitError(`the command ${name} has to be called with ${method}()`, {
      code: "streaming_not_supported",
      details: { command: name },
    });
  }
  return command;
}

function misconfigured(message) {
  return new SnakepitError(message, { code: "configuration_error" });
}
