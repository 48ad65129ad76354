"""Asks NVIDIA's library for the devices, and prints them as JSON.

Runs in a process of its own, which hangs or crashes with the driver. Needs the package
``nvidia-ml-py``.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pynvml


def main() -> None:
    """Print the devices. Ends with code 1 when there is no driver to ask."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        sys.exit(str(error))
    json.dump(list(_devices()), sys.stdout)


def _devices() -> Iterator[dict[str, Any]]:
    driver = _text(pynvml.nvmlSystemGetDriverVersion())
    for index in range(pynvml.nvmlDeviceGetCount()):
        with contextlib.suppress(pynvml.NVMLError):  # it is out of order
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            yield from (_facts(each) | {"driver": driver} for each in _parts(device) or [device])


def _parts(device: Any) -> list[Any]:
    """What a divided device is divided into."""
    parts: list[Any] = []
    with contextlib.suppress(pynvml.NVMLError):  # it can't be divided
        mode, _ = pynvml.nvmlDeviceGetMigMode(device)
        if mode == pynvml.NVML_DEVICE_MIG_ENABLE:
            for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(device)):
                with contextlib.suppress(pynvml.NVMLError):  # there is none of that number
                    parts.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(device, index))
    return parts


def _facts(device: Any) -> dict[str, Any]:
    facts = {
        "uuid": _text(pynvml.nvmlDeviceGetUUID(device)),
        "name": _text(pynvml.nvmlDeviceGetName(device)),
    }
    with contextlib.suppress(pynvml.NVMLError):  # it shares the memory of the CPU
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        facts |= {"memory_total": memory.total, "memory_free": memory.free}
    return facts


def _text(value: Any) -> str:
    """Older versions of the package give bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
