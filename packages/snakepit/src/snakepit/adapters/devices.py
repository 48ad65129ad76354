"""Which accelerators each worker of an adapter sees. Pure but for ``Devices.detect``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from snakepit.errors import ConfigurationError
from snakepit.hardware.accelerator import Accelerator
from snakepit.hardware.detection import detect
from snakepit.options import whole_number

CUDA: Final = "CUDA_VISIBLE_DEVICES"
# AMD's runtimes read these, the first one first: the next ones choose among what it has left.
_ROCR: Final = "ROCR_VISIBLE_DEVICES"
_HIP: Final = "HIP_VISIBLE_DEVICES"
_VARIABLE_OF: Final[Mapping[str, str]] = {"cuda": CUDA, "rocm": _ROCR}


@dataclass(frozen=True, slots=True)
class Devices:
    """The accelerators of an adapter's workers, and how they share them.

    Each worker has its own in the variable that the libraries read, before its class is imported
    or, where it is forked, constructed; code in it uses the first device it sees. The one that
    replaces a dead worker gets its device.

    Args:
        ids: what the variable calls them: numbers or UUIDs, such as ``["GPU-5d5ba0d6-..."]``. CUDA
            numbers them by speed, not as ``nvidia-smi`` does; UUIDs are the same for both.
        workers_per_device: how many workers may have a device at a time; 1: each has its own. A
            pool that needs more is refused. None for no limit: they are spread evenly.
        devices_per_worker: how many devices a worker gets. More than 1 only where
            ``workers_per_device`` is 1.
        variable: the environment variable; for AMD ``"ROCR_VISIBLE_DEVICES"``.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        adapter = PythonAdapter("my_worker:Worker", devices=Devices([0, 1], workers_per_device=2))
    """

    ids: Sequence[int | str]
    workers_per_device: int | None = field(default=1, kw_only=True)
    devices_per_worker: int = field(default=1, kw_only=True)
    variable: str = field(default=CUDA, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", _checked_ids(self.ids))
        if self.workers_per_device is not None:
            whole_number("workers_per_device", self.workers_per_device)
        whole_number("devices_per_worker", self.devices_per_worker)
        if self.devices_per_worker > 1 and self.workers_per_device != 1:
            raise ConfigurationError(
                f"devices_per_worker is {self.devices_per_worker} and workers_per_device "
                f"{self.workers_per_device}; workers with several devices can't share them, so "
                "one of the two has to be 1"
            )
        if self.devices_per_worker > len(self.ids):
            raise ConfigurationError(
                f"devices_per_worker is {self.devices_per_worker}, and there are only "
                f"{len(self.ids)} devices"
            )
        if not isinstance(self.variable, str) or not self.variable.isidentifier():
            raise ConfigurationError(
                f"variable is {self.variable!r}; it has to be the name of an environment variable"
            )

    @classmethod
    def detect(cls, *, workers_per_device: int | None = 1, devices_per_worker: int = 1) -> Devices:
        """Those that this process may use: the ones in its ``CUDA_VISIBLE_DEVICES`` or AMD's like
        variables, if one is set, or else those that :func:`snakepit.hardware.detect` finds.

        Blocks up to some seconds where the drivers are asked, the first time.

        Raises:
            ConfigurationError: there are none; says where it looked.

        Example::

            adapter = PythonAdapter("my_worker:Worker", devices=Devices.detect())
        """
        variable, ids = _chosen_by_environment(os.environ) or _chosen_by_maker(
            detect().accelerators
        )
        return cls(
            ids,
            workers_per_device=workers_per_device,
            devices_per_worker=devices_per_worker,
            variable=variable,
        )

    @property
    def worker_limit(self) -> int | None:
        """How many workers can have devices at a time, None for no limit."""
        if self.workers_per_device is None:
            return None
        return len(self.ids) * self.workers_per_device // self.devices_per_worker


class DeviceSlots:
    """Which worker has which devices, now."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices
        self._taken: dict[str, tuple[str, ...]] = {}

    def take(self, worker_id: str) -> tuple[str, ...]:
        """Devices for a worker: those that the fewest others have. Give them back with ``release``.

        Raises:
            ConfigurationError: all are taken. (A pool asks for no more workers than there may be.)
        """
        limit = self._devices.worker_limit
        if limit is not None and len(self._taken) >= limit:
            raise ConfigurationError(
                f"worker {worker_id} finds no device: {len(self._taken)} workers have them all"
            )
        held = [device for taken in self._taken.values() for device in taken]
        by_load = sorted(map(str, self._devices.ids), key=held.count)
        self._taken[worker_id] = tuple(by_load[: self._devices.devices_per_worker])
        return self._taken[worker_id]

    def release(self, worker_id: str) -> None:
        """Have a worker's devices back. One that has none is ignored."""
        self._taken.pop(worker_id, None)


def _checked_ids(ids: Sequence[int | str]) -> tuple[str, ...]:
    if isinstance(ids, str) or not isinstance(ids, Sequence) or not ids:
        raise ConfigurationError(
            f"devices are {ids!r}; give a sequence of numbers or UUIDs with at least one"
        )
    texts = tuple(str(each) for each in ids if _is_id(each))
    if len(texts) != len(ids):
        raise ConfigurationError(
            f"devices are {list(ids)!r}; each has to be a number from 0 on or a UUID"
        )
    if len(set(texts)) != len(texts):
        raise ConfigurationError(f"devices are {list(ids)!r}; one is named twice")
    return texts


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return value.isprintable() and bool(value) and not set(value) & set(", ")
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _chosen_by_environment(environ: Mapping[str, str]) -> tuple[str, tuple[str, ...]] | None:
    """The variable that says which devices this process may use, and those; None if none does."""
    # The last one that is read has the last word, in its own way of counting.
    for variable in (_HIP, CUDA, _ROCR):
        if variable in environ:
            ids = visible(environ[variable])
            if not ids:
                raise ConfigurationError(
                    f"{variable} is {environ[variable]!r}, so this process may use no accelerator"
                )
            return variable, ids
    return None


def visible(value: str) -> tuple[str, ...]:
    """The devices in the value of a variable: those before the first that can be none, as -1."""
    ids: list[str] = []
    for entry in (each.strip() for each in value.split(",")):
        if not _is_id(entry) or entry.startswith("-") or entry in ids:
            break
        ids.append(entry)
    return tuple(ids)


def _chosen_by_maker(found: Sequence[Accelerator]) -> tuple[str, tuple[str, ...]]:
    """The devices of the first maker that has some a process can be given."""
    for kind, variable in _VARIABLE_OF.items():
        ids = tuple(each.id for each in found if each.kind == kind)
        if ids:
            return variable, ids
    raise ConfigurationError(
        "no accelerator that a worker could be given was found: no variable such as "
        f"{CUDA} names one, and neither do the drivers of NVIDIA and AMD; "
        "leave devices= out to run on the CPU",
        details={"found": [each.name for each in found]},
    )
