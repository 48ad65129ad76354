"""What the tests of variables and tools run in worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import snakepit
from snakepit.errors import SnakepitError
from snakepit.testing import pass_gate
from snakepit_grpc_bridge import worker
from snakepit_grpc_bridge.variables.types import DatasetHandle, ModelHandle, Secret

KEPT_BY_THE_PROCESS: list[str] = []


def pid() -> int:
    return os.getpid()


def keep(text: str) -> list[str]:
    """Change something that belongs to the process."""
    KEPT_BY_THE_PROCESS.append(text)
    return KEPT_BY_THE_PROCESS


def passes(gate: str) -> int:
    pass_gate(gate)
    return os.getpid()


# --- variables ------------------------------------------------------------------------------------


def read(name: str) -> Any:
    return worker.get_variable(name)


def read_or(name: str, default: Any) -> Any:
    return worker.get_variable(name, default)


def size(name: str) -> int:
    return len(worker.get_variable(name))


def write(name: str, value: Any) -> None:
    worker.set_variable(name, value)


def write_live(name: str, what: str) -> None:
    """Write an object that only this process can have."""
    worker.set_variable(name, {"function": len, "object": object(), "type": Point}[what])


def write_and_read(name: str, value: Any) -> Any:
    worker.set_variable(name, value)
    return worker.get_variable(name)


async def read_and_write_async(name: str, value: Any) -> Any:
    before = await worker.aget_variable(name, None)
    await worker.aset_variable(name, value)
    return [before, await worker.aget_variable(name)]


def describe(name: str) -> dict[str, Any]:
    """What kind of thing a worker gets for a variable, and whether it could change it."""
    value = worker.get_variable(name)
    if isinstance(value, np.ndarray):
        return {
            "type": "ndarray",
            "dtype": value.dtype.str,
            "shape": list(value.shape),
            "fortran": value.flags.f_contiguous and not value.flags.c_contiguous,
            "writeable": value.flags.writeable,
            "sum": complex(value.sum()) if value.dtype.kind in "cf" else int(value.sum()),
        }
    if isinstance(value, Secret):
        return {"type": "Secret", "text": repr(value), "inside": value.reveal()}
    if isinstance(value, (ModelHandle, DatasetHandle)):
        kind = type(value).__name__
        return {"type": kind, "location": value.location, "metadata": value.metadata}
    return {"type": type(value).__name__, "value": value}


def memory_of(name: str) -> str:
    """The class of what holds the memory of an array that a worker gets."""
    owner = worker.get_variable(name)
    while (below := getattr(owner, "base", getattr(owner, "obj", None))) is not None:
        owner = below
    return type(owner).__name__


def change_what_was_read(name: str) -> Any:
    worker.get_variable(name).append("changed")
    return worker.get_variable(name)


def questions_for(names: list[str]) -> int:
    """Read variables one after another; how many questions to the host that took."""
    asked = _count_questions()
    for name in names:
        worker.get_variable(name, None)
    return asked()


def _count_questions() -> Callable[[], int]:
    call = snakepit.current_call()
    seen: list[str] = []
    ask = type(call).call_host

    def counting(self: Any, name: str, *args: Any, **options: Any) -> Any:
        seen.append(name)
        return ask(self, name, *args, **options)

    type(call).call_host = counting  # type: ignore[method-assign]

    def stop() -> int:
        type(call).call_host = ask  # type: ignore[method-assign]
        return len(seen)

    return stop


def read_in_threads(name: str, count: int) -> list[Any]:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(worker.get_variable(name)))
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def add(name: str) -> int:
    """Add one, as code does that knows of nobody else."""
    value = worker.get_variable(name, 0) + 1
    worker.set_variable(name, value)
    return int(value)


def count_up_variable(name: str, times: int) -> None:
    """Add one so many times, as code does that knows of others."""
    for _ in range(times):
        worker.update_variable(name, lambda value: value + 1, default=0)


async def count_up_together(name: str, writers: int, times: int) -> int:
    """The same in so many tasks at once; the process that they ran in."""

    async def count_up() -> None:
        for _ in range(times):
            await worker.aupdate_variable(name, lambda value: value + 1, default=0)

    await asyncio.gather(*(count_up() for _ in range(writers)))
    return os.getpid()


def update_with(name: str, what: str) -> Any:
    """Update a variable by a function that returns odd things."""
    functions: dict[str, Callable[[Any], Any]] = {
        "text": lambda _: "no number",
        "error": lambda value: value // 0,
        "double": lambda value: value * 2,
    }
    return worker.update_variable(name, functions[what])


def update_in_place(names: list[str]) -> list[Any]:
    """Begin variables with one default and a function that changes it; what they and it are now."""
    default: list[str] = []

    def noted(found: list[str]) -> list[str]:
        found.append("ada")
        return found

    return [*(worker.update_variable(name, noted, default) for name in names), default]


def names_of_variables(pattern: str) -> list[list[Any]]:
    return [
        [each["name"], each["type"], each["version"], each["scope"], each["id"]]
        for each in worker.list_variables(pattern)
    ]


def delete(name: str) -> list[Any]:
    """Delete a variable; what was there before, whether it was deleted, and what is there then."""
    before = worker.get_variable(name, None)
    deleted = worker.delete_variable(name)
    return [before, deleted, worker.has_variable(name), worker.get_variable(name, None)]


async def delete_async(name: str) -> list[Any]:
    before = [await worker.ahas_variable(name), await worker.aget_variable(name, None)]
    deleted = await worker.adelete_variable(name)
    return [*before, deleted, await worker.ahas_variable(name), await worker.alist_variables(name)]


def write_by_id(name: str, identifier: str, value: Any) -> list[Any]:
    """Write by the id what was read by the name, and the other way round."""
    seen = [worker.get_variable(name), worker.get_variable(identifier)]
    worker.set_variable(identifier, value)
    seen += [worker.get_variable(name), worker.get_variable(identifier)]
    worker.set_variable(name, value + 1)
    seen += [worker.get_variable(name), worker.get_variable(identifier)]
    worker.update_variable(identifier, lambda number: number + 1)
    return [*seen, worker.get_variable(name), worker.get_variable(identifier)]


# --- tools ----------------------------------------------------------------------------------------


def call(name: str, parameters: dict[str, Any]) -> Any:
    return worker.call_tool(name, **parameters)


def tools_seen() -> list[dict[str, Any]]:
    return worker.list_tools()


def questions_for_calls(name: str, parameters: list[dict[str, Any]]) -> list[Any]:
    """Call a tool several times; the results or errors, and how many questions that took."""
    asked = _count_questions()
    results: list[Any] = []
    for each in parameters:
        try:
            results.append(worker.call_tool(name, **each))
        except Exception as error:
            results.append(type(error).__name__)
    return [results, asked()]


def answers_between_steps(steps: int) -> list[list[str]]:
    """What the tool "answer" says, twice each, before, between and after calls of "step"."""

    def answer() -> str:
        try:
            return str(worker.call_tool("answer"))
        except SnakepitError as error:
            return type(error).__name__

    answers = [[answer(), answer()]]
    for _ in range(steps):
        worker.call_tool("step")
        answers.append([answer(), answer()])
    return answers


def has_imported(module: str) -> bool:
    """Whether this process has."""
    return module in sys.modules


def stream(name: str, parameters: dict[str, Any], most: int = 1000) -> list[Any]:
    items: list[Any] = []
    for item in worker.stream_tool(name, **parameters):
        items.append(item)
        if len(items) == most:
            break
    return items


async def stream_async(name: str, parameters: dict[str, Any]) -> list[Any]:
    return [item async for item in worker.astream_tool(name, **parameters)]


async def call_many(name: str, count: int) -> list[Any]:
    """Call a tool so many times at once."""
    return await asyncio.gather(*(worker.acall_tool(name, number=n) for n in range(count)))


def dies_after_calling(name: str) -> None:
    worker.call_tool(name)
    os.kill(os.getpid(), signal.SIGKILL)


def dives(depth: int) -> int:
    """Call the tool that calls this function, as long as there is depth left."""
    return depth if depth == 0 else int(worker.call_tool("dive", depth=depth - 1)) + 1


@dataclass
class Point:
    x: float
    y: float = 0.0


def distance(a: Point, b: Point, unit: Literal["m", "km"] = "m") -> dict[str, Any]:
    """How far two points are from each other.

    Args:
        a: from there.
        b: to there.
        unit: of the result.
    """
    metres = float(np.hypot(a.x - b.x, a.y - b.y))
    return {"distance": metres if unit == "m" else metres / 1000, "pid": os.getpid()}


async def rate() -> float:
    """A variable of the caller's session, doubled."""
    return float(await worker.aget_variable("rate")) * 2


def count_up(to: int) -> Iterator[int]:
    """Numbers."""
    yield from range(to)


async def count_down(start: int) -> AsyncIterator[int]:
    """Numbers, too."""
    for number in range(start, 0, -1):
        yield number


def stuck_after(count: int) -> Iterator[int]:
    """Numbers, and then nothing any more."""
    yield from range(count)
    worker.call_tool("never")


def busy() -> None:
    worker.call_tool("enter")
    worker.call_tool("leave")


def streams_down(start: int) -> Iterator[int]:
    """Numbers, of which each but the first comes from the tool that this function is."""
    yield start
    if start > 1:
        yield from worker.stream_tool("down", start=start - 1)


def waits() -> str:
    return f"waited for {worker.call_tool('wait')}"


def no_data() -> object:
    return object()


NOT_A_FUNCTION = Point(1.0)


def write_secret(name: str) -> None:
    worker.set_variable(name, Secret("mine"))


async def write_handles(location: str) -> list[str]:
    """Write a handle in each way there is; which classes are read back."""
    model, dataset = ModelHandle(location, {"size": 3}), DatasetHandle(location)
    worker.set_variable("new-model", model)
    await worker.aset_variable("new-dataset", dataset)
    worker.update_variable("updated-model", lambda _: model, None)
    names = ("new-model", "new-dataset", "updated-model")
    return [type(worker.get_variable(name)).__name__ for name in names]
