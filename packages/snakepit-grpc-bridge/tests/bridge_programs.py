"""Programs that the tests run in worker processes."""

from __future__ import annotations

import gc
import os
import signal
import threading
from typing import Any

import dspy

from snakepit_grpc_bridge.worker import call_tool, get_variable, list_tools, set_variable


class Counter:
    """Keeps a state, which shows whether an instance is the same one."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def __call__(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def add_from(self, other: Counter) -> int:
        self.value += other.value
        return self.value

    def echo(self, text: str) -> str:
        return text

    def itself(self) -> Counter:
        return self

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def later(self) -> int:
        return self.value

    @staticmethod
    def twice(number: int) -> int:
        return 2 * number


class Shop(dspy.Module):  # type: ignore[misc]
    """Asks the host for a price, then the model for an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.respond = dspy.Predict("question, price: float -> answer")

    def forward(self, question: str, item: str) -> Any:
        price = call_tool("price", item=item) * get_variable("rate", 1.0)
        set_variable("last_price", price)
        return self.respond(question=question, price=price)


class Configures(dspy.Module):  # type: ignore[misc]
    """Does what is refused, on whichever thread."""

    def forward(self, way: str) -> str:
        ways: dict[str, Any] = {
            "configure": lambda: dspy.configure(lm=None),
            "settings": lambda: dspy.settings.configure(lm=None),
            "attribute": lambda: setattr(dspy.settings, "lm", None),
            "cache": lambda: dspy.configure_cache(enable_memory_cache=True),
        }
        ways[way]()
        return "was allowed"

    def on_a_thread(self) -> str:
        seen: list[BaseException] = []

        def run() -> None:
            try:
                dspy.configure(lm=None)
            except Exception as error:
                seen.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        raise seen[0]


def settings_seen() -> dict[str, Any]:
    """What a call can see of DSPy's settings."""
    return {
        "lm": type(dspy.settings.lm).__name__,
        "history": not dspy.settings.disable_history,
        "trace": list(dspy.settings.trace),
        "memory_cache": dspy.cache.enable_memory_cache,
        "disk_cache": dspy.cache.enable_disk_cache,
        "threads": threading.active_count(),
    }


def lm_options() -> dict[str, Any]:
    """The options of the call's language model."""
    return {name: value for name, value in dspy.settings.lm.kwargs.items() if value is not None}


def environment() -> list[str]:
    """The names of this process's variables."""
    return list(os.environ)


def tools() -> list[str]:
    """The tools that the call can use."""
    return [tool["name"] for tool in list_tools()]


def plain_and_not() -> dict[str, Any]:
    """Data with something in it that is none."""
    example: Any = dspy.Example
    return {"numbers": (1, {2}), "example": example(a=1).with_inputs("a"), "what": Counter(7)}


def fails() -> None:
    """Raises an ordinary exception."""
    raise ValueError("out of paper")


def spins() -> None:
    """Never ends by itself."""
    while True:
        pass


def waits_for_the_host() -> None:
    """Ends when the host's tool does."""
    call_tool("wait")


def counters() -> int:
    """How many counters this process holds."""
    gc.collect()
    return sum(isinstance(thing, Counter) for thing in gc.get_objects())
