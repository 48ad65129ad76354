"""What the tests of the executor have it run, and programs of their own.

python executor_programs.py PROGRAM ARGUMENT ...
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import snakepit

STATE: list[Any] = []


def set_state(*values: Any) -> None:
    STATE[:] = values


def state() -> list[Any]:
    return STATE


def fail_to_start() -> None:
    raise RuntimeError("no licence")


def square(number: int) -> int:
    return number * number


def pid(_: object = None) -> int:
    return os.getpid()


def parent() -> tuple[int, bool]:
    process = multiprocessing.parent_process()
    assert process is not None
    return process.pid or 0, process.is_alive()


def die(_: object = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(marker: str) -> str:
    """Die when called for the first time."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return "alive"
    die()
    return "never"


def raise_value_error(text: str) -> None:
    raise ValueError(text)


def block(started: str) -> None:
    Path(started).touch()
    threading.Event().wait()  # it is stopped or killed there


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


class FailsToUnpickle:
    def __reduce__(self) -> Any:
        return raise_value_error, ("broken on arrival",)


def unpicklable() -> Unpicklable:
    return Unpicklable()


def fails_to_unpickle() -> FailsToUnpickle:
    return FailsToUnpickle()


class OddError(Exception):
    """Can be pickled, but not be restored."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"{left} and {right}")


def raise_odd_error() -> None:
    raise OddError(1, 2)


def nested(number: int) -> int:
    """An executor inside of a worker."""
    with snakepit.ProcessPoolExecutor(max_workers=1) as executor:
        return executor.submit(square, number).result()


# --- programs ------------------------------------------------------------------------------------


def new(kind: str) -> Executor:
    cls: Any = {"snakepit": snakepit, "standard": concurrent.futures}[kind].ProcessPoolExecutor
    executor: Executor = cls(max_workers=2)
    return executor


def kill_now_and_then(kind: str, count: str) -> None:
    """Calls, every tenth of which kills its worker; how many of the others have their result."""
    executor = new(kind)
    futures = []
    good = 0
    for number in range(int(count)):
        function: Callable[[int], Any] = die if number % 10 == 5 else square
        try:
            futures.append((number, executor.submit(function, number)))
        except concurrent.futures.BrokenExecutor:
            continue
    for number, future in futures:
        with contextlib.suppress(concurrent.futures.BrokenExecutor):
            good += future.result() == number * number
    print(good)
    executor.shutdown()


def forget(_: str) -> None:
    """End without a shutdown, with calls that wait."""
    executor = new("snakepit")
    for number in range(20):
        executor.submit(print_square, number)


def be_interrupted(folder: str) -> None:
    """Be left by an interrupt while a call runs, which tidies up, and others wait."""
    with new("snakepit") as executor:
        executor.map(block_and_tidy_up, [folder] * 10)
        waiting = threading.Event()
        while not Path(folder, "started").exists():
            waiting.wait(0.005)
        signal.raise_signal(signal.SIGINT)


def block_and_tidy_up(folder: str) -> None:
    try:
        block(str(Path(folder, "started")))
    finally:
        Path(folder, "tidy").touch()


def print_square(number: int) -> None:
    os.write(1, b"%d\n" % (number * number))  # whole, also when two workers write


PROGRAMS: dict[str, Callable[..., None]] = {
    "kill_now_and_then": kill_now_and_then,
    "forget": forget,
    "be_interrupted": be_interrupted,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
