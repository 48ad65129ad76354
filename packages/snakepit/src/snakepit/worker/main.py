"""The life of a worker process: handshake, serving, orderly end."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from snakepit.errors import ProtocolError, error_to_wire
from snakepit.version import __version__
from snakepit.wire.events import Listen
from snakepit.wire.features import SEGMENTS_FEATURE, common_features, own_features
from snakepit.wire.frames import PROTOCOL_VERSIONS, Frame, FrameType
from snakepit.wire.messages import message_frame, read_body, value_frame
from snakepit.worker.concurrent import ConcurrentEngine
from snakepit.worker.context import mark_deadlines
from snakepit.worker.control import start_control_thread
from snakepit.worker.limits import apply_limits
from snakepit.worker.marks import WORKER_VARIABLE, DeadlineMark
from snakepit.worker.port import Port
from snakepit.worker.registry import Command, commands_of, described
from snakepit.worker.segments import ControlPort
from snakepit.worker.serial import SerialEngine
from snakepit.worker.stacks import dump_stacks_before, dump_stacks_on_demand
from snakepit.worker.target import load_target
from snakepit.worker.telemetry import EventForwarder

_STDERR: Final = 2


class WorkerDescriptors(NamedTuple):
    """What a worker is born with, besides its standard streams: its ends of the channels, its
    deadline mark, and what it inherits of the host's own, by the numbers that these are to have.
    """

    data: int
    control: int
    mark: int
    inherited: Mapping[int, int]


def main(*numbers: str) -> NoReturn:
    """The program of a worker that is spawned, with its descriptors from 3 on.

    ``numbers`` are those that the inherited ones are to have, which follow.
    """
    inherited = {int(number): fd for fd, number in enumerate(numbers, start=6)}
    run_worker(WorkerDescriptors(3, 4, 5, inherited))


def run_worker(descriptors: WorkerDescriptors) -> NoReturn:
    """Serve the host on ``descriptors``, then end the process."""
    code = 1
    try:
        # A pipe is not a terminal, so Python would keep the last lines of a crashing worker in its
        # buffer.
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        code = _serve(descriptors)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the program may have closed it
                stream.flush()
        # Not sys.exit(): a forked worker must not run what the template registered with atexit.
        os._exit(code)


def _serve(descriptors: WorkerDescriptors) -> int:
    os.environ[WORKER_VARIABLE] = str(os.getpid())
    mark_deadlines(DeadlineMark(descriptors.mark))
    stacks = dump_stacks_on_demand()
    _inherit(descriptors.inherited)
    port = Port(socket.socket(fileno=descriptors.data))
    config = _handshake(port, stacks)
    forwarder = EventForwarder()
    try:
        forwarder.listen(Listen(0, config.get("listen", [])))
        _limit_resources(config.get("limits") or {})
        os.environ.update(config.get("env") or {})
        if config["sys_path"] is not None:
            sys.path[:] = config["sys_path"]
        worker = load_target(config["target"])(**config["config"])
        commands = commands_of(worker)
    except BaseException as error:
        port.send(value_frame(FrameType.FAILED, 0, error_to_wire(error)))
        return 1
    control = ControlPort(socket.socket(fileno=descriptors.control))
    control.exchange.label(None, config["worker_id"])
    forwarder.connect(control)
    if SEGMENTS_FEATURE in common_features(config.get("features")):
        port.share(control.exchange)
    engine = _engine(port, commands, config["concurrency"])
    engine.worker_id = config["worker_id"]
    engine.on_listen = forwarder.listened
    start_control_thread(control, engine, forwarder)
    port.send(value_frame(FrameType.READY, 0, described(commands)))
    port.look_before_sleeping(config["spin"])
    engine.serve()
    close = getattr(worker, "close", None)
    if close is not None:
        close()
    forwarder.flush()
    return 0


def _inherit(descriptors: Mapping[int, int]) -> None:
    """Put what comes from the host to its place."""
    for number, fd in descriptors.items():
        os.dup2(fd, number, inheritable=number <= _STDERR)
        os.close(fd)


def _limit_resources(limits: Mapping[str, Any]) -> None:
    if limits:
        apply_limits(limits)
    if limits.get("cpu_time") is not None:
        dump_stacks_before(signal.SIGXCPU)


def _handshake(port: Port, stacks: int | None) -> Mapping[str, Any]:
    """Introduce this worker; return the configuration the host answers with."""
    info = {
        "language": "python",
        "python": platform.python_version(),
        "runtime": __version__,
        "features": own_features(),
        "stacks": stacks,
    }
    port.send(message_frame(FrameType.HELLO, 0, list(PROTOCOL_VERSIONS), os.getpid(), info))
    frames: list[Frame] = []
    while not frames:
        frames = port.read()
    version, config = read_body(frames[0], 2)
    if frames[0].type != FrameType.WELCOME or version not in PROTOCOL_VERSIONS:
        raise ProtocolError(
            f"expected WELCOME in a version of {PROTOCOL_VERSIONS}, got {frames[0].type}"
        )
    return config  # type: ignore[no-any-return]  # a map, by the protocol


def _engine(
    port: Port, commands: Mapping[str, Command], concurrency: int
) -> SerialEngine | ConcurrentEngine:
    if concurrency == 1:
        return SerialEngine(port, commands)
    return ConcurrentEngine(port, commands, concurrency)
