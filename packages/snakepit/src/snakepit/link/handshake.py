"""How a worker introduces itself and is told what to do. Pure: it takes frames and makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from snakepit.errors import ProtocolError, VersionMismatch
from snakepit.wire.features import (
    EVENTS_FEATURE,
    RECALL_FEATURE,
    SEGMENTS_FEATURE,
    STACKS_FEATURE,
    common_features,
)
from snakepit.wire.frames import PROTOCOL_VERSIONS, Frame, FrameType
from snakepit.wire.messages import message_frame, read_body

__all__ = ["Hello", "WorkerConfig", "progress_of", "read_hello", "welcome_frame"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker is told at its start."""

    target: str
    config: Mapping[str, Any]
    concurrency: int
    spin: float
    sys_path: list[str] | None
    limits: Mapping[str, int | None] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    device_variable: str | None = None

    @property
    def env(self) -> dict[str, str]:
        """The variables of the environment that are this worker's own."""
        return {self.device_variable: ",".join(self.devices)} if self.device_variable else {}


class Hello(NamedTuple):
    """What a worker says of itself, as far as this host understands it.

    ``stacks``: the descriptor, in its process, of the file that its stacks are written to when it
    gets the signal.
    """

    version: int
    features: list[str]
    stacks: Any

    @property
    def shares_segments(self) -> bool:
        """Whether large buffers may travel in shared memory."""
        return SEGMENTS_FEATURE in self.features

    @property
    def tells_events(self) -> bool:
        """Whether it can tell the events of its code."""
        return EVENTS_FEATURE in self.features

    @property
    def tells_stacks(self) -> bool:
        """Whether it can be asked for its stacks by a frame."""
        return STACKS_FEATURE in self.features

    @property
    def gives_back_calls(self) -> bool:
        """Whether it may be sent calls ahead."""
        return RECALL_FEATURE in self.features


def read_hello(frame: Frame) -> Hello:
    """Understand a ``HELLO``.

    Raises:
        ProtocolError: it is none.
        VersionMismatch: the worker speaks no version that this host speaks.
    """
    versions, pid, info = read_body(frame, 3)
    if not isinstance(versions, list):
        raise ProtocolError("a worker says HELLO with a list of versions")
    common = [version for version in PROTOCOL_VERSIONS if version in versions]
    if not common:
        raise VersionMismatch(
            f"the worker (pid {pid}, {info}) speaks the protocol versions {versions}, "
            f"this host {list(PROTOCOL_VERSIONS)}; install the same version of snakepit in both",
            details={"ours": list(PROTOCOL_VERSIONS), "theirs": versions},
        )
    known = info if isinstance(info, dict) else {}
    return Hello(max(common), common_features(known.get("features")), known.get("stacks"))


def progress_of(hello: Hello | None, output: str) -> str:
    """How far a start has come that is given up, for its error."""
    said = "it has said nothing on its channel" if hello is None else "it has introduced itself"
    return f"{said}; its last output was:\n{output}" if output else said


def welcome_frame(hello: Hello, worker_id: str, config: WorkerConfig, listen: list[str]) -> bytes:
    """The ``WELCOME`` that answers it; ``listen`` is what it is to tell of."""
    told = {
        "worker_id": worker_id,
        "target": config.target,
        "config": dict(config.config),
        "concurrency": config.concurrency,
        "spin": config.spin,
        "sys_path": config.sys_path,
        "limits": dict(config.limits),
        "env": config.env,
        "features": hello.features,
        "listen": listen,
    }
    return message_frame(FrameType.WELCOME, 0, hello.version, told)
