"""What is measured in the worker, and what it is compared with there. Worker side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import snakepit
from snakepit_grpc_bridge.worker import call_tool, get_variable

__all__ = [
    "blocking_host_tool",
    "cached_read",
    "host_call",
    "host_tool",
    "local_call",
    "per_call",
    "uncached_read",
]

#: Calls between two looks at the clock, where one takes less than a microsecond or so.
_MANY = 200


def per_call(function: Callable[[], object], seconds: float, many: int = 1) -> float:
    """The median of the seconds that a call takes."""
    taken: list[float] = []
    repeat = range(many)
    now = time.perf_counter()
    end = now + seconds
    while now < end:
        start = now
        for _ in repeat:
            function()
        now = time.perf_counter()
        taken.append((now - start) / many)
    return statistics.median(taken)


def local_call(seconds: float) -> float:
    """A function that looks a name up in a dict."""
    values = {"limited": 0.5}

    def look_up(name: str) -> float:
        return values[name]

    return per_call(lambda: look_up("limited"), seconds, _MANY)


def cached_read(seconds: float) -> float:
    """A variable that the worker has kept."""
    return per_call(lambda: get_variable("limited"), seconds, _MANY)


def uncached_read(seconds: float) -> float:
    """A variable that it may not keep, because it expires."""
    return per_call(lambda: get_variable("expiring"), seconds)


def host_call(seconds: float) -> float:
    """A host function that returns what came."""
    call = snakepit.current_call()
    return per_call(lambda: call.call_host("echo", {"data": 0.5}), seconds)


def host_tool(seconds: float) -> float:
    """A tool that does the same."""
    return per_call(lambda: call_tool("echo", data=0.5), seconds)


def blocking_host_tool(seconds: float) -> float:
    """That, as a plain function, which gets a thread."""
    return per_call(lambda: call_tool("blocking_echo", data=0.5), seconds)
