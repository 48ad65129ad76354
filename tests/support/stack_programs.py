"""What the full-stack tests run in worker processes."""

from __future__ import annotations

import os
import threading

from snakepit_grpc_bridge.worker import call_tool, get_variable, set_variable


def process_id() -> int:
    return os.getpid()


def read_variable(name: str) -> object:
    return get_variable(name)


def write_variable(name: str, value: object) -> None:
    set_variable(name, value)


def use_tool(name: str, parameters: dict[str, object]) -> object:
    return call_tool(name, **parameters)


def block(ready: str) -> None:
    """Tell the host's tool `ready` which process this is, then block."""
    call_tool(ready, pid=os.getpid())
    threading.Event().wait(600)


class Counter:
    """A program with a state, which shows whether an instance is the same one."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def __call__(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def reset(self) -> int:
        self.value = 0
        return self.value


def add(left: int, right: int) -> int:
    """The sum."""
    return left + right
