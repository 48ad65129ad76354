"""`python -m benchmarks.pool.steps`: what a call is made of, in steps of the interpreter.

Times say little on a busy machine. How many instructions of byte code Python runs for a call is the
same in each run, so this shows what each part of the pool costs, and what a change has added to it.
System calls, and what extension modules do, are not in it.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from types import FrameType
from typing import Any

from snakepit import Pool, PythonAdapter, command

_CALLS = 200
_WORKER = "benchmarks.pool.steps:CountedWorker"
#: The parts of the pool, by the modules that make them.
PARTS = {
    "arguments, options, may it be called here": {
        "pool.calling",
        "options",
        "pool.pool",
        "calls.nesting",
    },
    "the call's record, waking its caller": {"calls.call", "loops.wakeups"},
    "scheduling: slots, sessions, priorities, queue": {"calls.scheduler", "calls.call_queue"},
    "looking ahead": {"calls.look_ahead"},
    "from submission to end: deadlines, counters, quarantine": {
        "pool.dispatcher",
        "calls.deadlines",
    },
    "supervision: restart budget, recycling, probes": {"supervision.workforce"},
    "calls in flight at a worker": {"link.worker", "link.connection", "wire.exchange"},
    "frames and messages": {"wire.frames", "wire.messages"},
    "values: types, limits, shared memory": {"wire.codec", "wire.values", "wire.placing"},
    "running a command: stack, cancellation, nested calls": {"worker.serial", "worker.calls"},
    "the call's context": {"worker.context"},
    "the worker's socket": {"worker.port"},
}
_OTHER = "the event loop and the rest"


class StepCounter:
    """Counts the instructions of byte code that the calling thread runs, by module."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()

    def start(self) -> None:
        """Count from now on, also in the functions that run already."""
        self.steps.clear()
        sys.settrace(self._trace)
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            self._trace(frame, "call", None)
            frame.f_trace = self._trace
            frame = frame.f_back

    def stop(self) -> dict[str, int]:
        """Count no more; the steps by module, as its path below the package."""
        sys.settrace(None)
        return dict(self.steps)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.steps[frame.f_globals.get("__name__", "").removeprefix("snakepit.")] += 1
        return self._trace


_counter = StepCounter()


class CountedWorker:
    """An echo that counts the steps of its own process."""

    @command
    def echo(self, data: Any) -> Any:
        """Return what came."""
        return data

    @command
    def start(self) -> None:
        """Begin to count."""
        _counter.start()

    @command
    def stop(self) -> dict[str, int]:
        """The steps since ``start``, by module."""
        return _counter.stop()


async def steps_of_a_call() -> tuple[dict[str, float], dict[str, float]]:
    """The steps of a call with nothing else in flight, in the host and in the worker, by part."""
    # Counting makes both sides so slow that looking for an answer is in vain.
    async with Pool(PythonAdapter(_WORKER), size=1, spin=0) as pool:
        argument = {"data": b"x" * 100}

        async def make_calls() -> None:
            for _ in range(_CALLS):
                await pool.execute("echo", argument)

        await make_calls()
        _counter.start()
        await make_calls()
        host = _counter.stop()
        await pool.execute("start")
        await make_calls()
        worker = await pool.execute("stop")
    return by_part(host), by_part(worker)


def by_part(steps: dict[str, int]) -> dict[str, float]:
    """The steps of one call by part, from those of all by module."""
    found = dict.fromkeys((*PARTS, _OTHER), 0.0)
    for module, count in steps.items():
        part = next((name for name, modules in PARTS.items() if module in modules), _OTHER)
        found[part] += count / _CALLS
    return found


def main() -> None:
    """Print the table."""
    host, worker = asyncio.run(steps_of_a_call())
    print("| part | host | worker |\n|---|---|---|")
    for part, steps in host.items():
        print(f"| {part} | {steps:.0f} | {worker[part]:.0f} |")
    print(f"| together | {sum(host.values()):.0f} | {sum(worker.values()):.0f} |")


if __name__ == "__main__":
    main()
