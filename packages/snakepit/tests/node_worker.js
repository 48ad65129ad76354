/** Commands in Node for the tests of pools. */

import { setTimeout as sleep } from "node:timers/promises";

import { serve } from "../node/src/index.js";

function kindOf(value) {
  return value === null || typeof value !== "object" ? typeof value : value.constructor.name;
}

let cleaned = 0;
let late;

const commandsOf = ({ greeting = "Hello" }) => ({
  echo: ({ value }) => value,
  kind_of: ({ value }) => kindOf(value),
  pid: () => process.pid,
  greet: ({ name }) => `${greeting}, ${name}!`,

  greet_twice(args) {
    return [this.greet(args), this.greet(args)];
  },

  async sleep({ seconds }, { signal }) {
    await sleep(seconds * 1000, undefined, { signal });
    return process.pid;
  },

  spin() {
    for (;;);
  },

  crash() {
    console.log("about to abort");
    process.abort();
  },

  forget() {
    Promise.reject(new Error("nobody waits for me"));
    return sleep(60_000);
  },

  call_host: ({ name, args }, call) => call.callHost(name, args),

  async call_host_and_leave(_, call) {
    call.callHost("never");
    await call.callHost("inc", { x: 1 });
    return "left";
  },

  call_host_too_late(_, call) {
    late = sleep(1)
      .then(() => call.callHost("inc", { x: 1 }))
      .catch((error) => error.code);
  },

  what_came_too_late: () => late,

  async *numbers() {
    try {
      for (let i = 0; ; i++) yield i;
    } finally {
      cleaned += 1;
    }
  },

  times_cleaned: () => cleaned,
});

async function close() {
  await sleep(1);
  console.log("closed in order");
}

serve(commandsOf, { close });
