"""The work, the same for every contender. Runs in the workers."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

#: The size of a model that is small, and large enough that its weights come from memory.
MODEL_INPUTS, _MODEL_HIDDEN, _MODEL_OUTPUTS = 784, 512, 10


class Commands:
    """What a worker can be asked to do. Peers get it as it is, or its functions one by one."""

    def echo(self, data: Any) -> Any:
        """Return what came: bytes, or an array."""
        return data

    async def echo_async(self, data: Any) -> Any:
        """The same as a coroutine."""
        return data

    def total(self, array: Any) -> float:
        """Read every element of an array once."""
        return float(array.sum())

    def nap(self, seconds: float) -> int:
        """Be busy without using the processor; tell which process was."""
        time.sleep(seconds)
        return os.getpid()

    def use_dspy(self, task: tuple[str, int]) -> int:
        """Import DSPy, make so many predictions, meet the other workers, and tell which process
        this is. ``task``: the path of the gate where they meet, and the number of predictions."""
        gate, predictions = task
        predict(predictions)
        with socket.socket(socket.AF_UNIX) as meeting:
            meeting.connect(gate)
            meeting.recv(1)  # the end of file comes when all are there
        return os.getpid()


class Model:
    """A neural network with one hidden layer and fixed weights, in numpy."""

    def __init__(self) -> None:
        import numpy

        random = numpy.random.default_rng(seed=1)
        sizes = ((MODEL_INPUTS, _MODEL_HIDDEN), (_MODEL_HIDDEN, _MODEL_OUTPUTS))
        self._first, self._last = (random.normal(size=size).astype("float32") for size in sizes)

    def score(self, rows: Any) -> Any:
        """The outputs for each row of inputs."""
        return (rows @ self._first).clip(min=0.0) @ self._last


def predict(count: int) -> None:
    """Import DSPy and make so many predictions."""
    import dspy

    with dspy.context(lm=dspy.utils.DummyLM([{"answer": "4"}] * count)):
        program = dspy.Predict("question -> answer")
        for number in range(count):
            program(question=f"what is 2 + 2, for the {number}th time?")


_commands = Commands()
#: For peers that run functions: they are found by their module and name.
echo = _commands.echo
total = _commands.total
nap = _commands.nap
use_dspy = _commands.use_dspy
