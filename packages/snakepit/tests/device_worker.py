"""Classes that look at the devices they are given; some touch the driver where they must not."""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType, SimpleNamespace

from fresh_commands import FreshCommands

import snakepit

NAMES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
# What a library sees that looks when it is imported.
AT_IMPORT = {name: os.environ.get(name) for name in NAMES}


class Worker(FreshCommands):
    """Tells which devices it had at each moment."""

    def __init__(self) -> None:
        # What a library does with its first use of a device: from then on it sees these alone.
        self.at_first_use = {name: os.environ.get(name) for name in NAMES}

    @snakepit.command
    def devices(self) -> dict[str, dict[str, str | None]]:
        return {"import": AT_IMPORT, "construction": self.at_first_use}

    @snakepit.command
    def asking(self) -> str | None:
        return os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK")

    @snakepit.command
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()


class Initializes(Worker):
    """Its warm hook uses a device, as torch would; here it is a stand-in for torch."""

    @classmethod
    def warm(cls) -> None:
        torch = ModuleType("torch")
        torch.cuda = SimpleNamespace(is_initialized=lambda: True)  # type: ignore[attr-defined]
        sys.modules["torch"] = torch


class OutOfMemoryError(RuntimeError):
    """As torch's."""

    __module__ = "torch"


class Failing(Worker):
    """Its device fails, in the words of torch."""

    @snakepit.command
    def fill(self) -> None:
        raise OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB"
        )

    @snakepit.command
    def assert_on_device(self) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    @snakepit.command
    def fail(self) -> None:
        raise RuntimeError("a mistake that has nothing to do with the device")
