"""The template: a single-threaded fork server that has imported and exercised what its workers
need.

Runs in a process of its own, a child of the keeper. Workers are forked by a process between, so
that the keeper becomes their parent and can read how they ended, also after the template's own
death.

Messages from the host::

    {"op": "prepare", "version": "...", "sys_path": [...] | null, "target": "pkg.mod:Class",
     "preload": [...], "warm": "..."}      the arguments of its `warm`, encoded, in hexadecimal
    {"op": "fork", "id": n, "inherited": [i, ...], "nfds": 4 + number of those}
        the worker's data, control and mark descriptors, those that it inherits from the host, which
        are to have the numbers i there, and its output

and to it::

    {"event": "ready", "warnings": [...]} | {"event": "refused", "error": {...}} (then it exits)
    {"event": "unsafe", "reasons": [...]}     (it can't fork safely; it exits)
    {"event": "forked", "id": n, "pid": p} | {"event": "fork_failed", "id": n, "error": "..."}
"""

from __future__ import annotations

import gc
import os
import random
import select
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from snakepit.errors import VersionMismatch, error_to_wire
from snakepit.processes.channel import Channel, ChannelClosed, Message
from snakepit.processes.fork_safety import (
    doubtful_to_fork,
    open_descriptors,
    unsafe_to_fork,
)
from snakepit.processes.linux import die_with_parent
from snakepit.version import __version__
from snakepit.wire.codec import decode
from snakepit.worker.main import WorkerDescriptors, run_worker
from snakepit.worker.target import import_for_worker, load_target

# Workers that one process between forks at most: each waits until it has ended.
_TOGETHER: Final = 8


@dataclass(frozen=True, slots=True)
class _Request:
    """A worker that is to be forked, and the descriptors that it gets."""

    id: int
    inherited: list[int]
    fds: list[int]

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


def main() -> None:
    """Serve fork requests on the channel, descriptor 3, until the host closes it."""
    channel = Channel(socket.socket(fileno=3))
    try:
        _serve(channel)
    except ChannelClosed:
        os._exit(0)


def _serve(channel: Channel) -> None:
    while True:
        requests: list[_Request] = []
        for message, fds in _received(channel):
            if message["op"] == "prepare":
                _prepare(channel, message)
            else:
                requests.append(_Request(message["id"], message["inherited"], fds))
        if requests:
            _fork_workers(channel, requests)


def _received(channel: Channel) -> list[tuple[Message, list[int]]]:
    """Wait for a message; return it and those that are already behind it, up to a number."""
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    poller.poll()
    found = channel.receive()
    while len(found) < _TOGETHER and poller.poll(0):
        found += channel.receive()
    return found


def _prepare(channel: Channel, message: Message) -> None:
    own = open_descriptors()
    try:
        _require_version(message["version"])
        if message["sys_path"] is not None:
            sys.path[:] = message["sys_path"]
        for name in message["preload"]:
            import_for_worker(name)
        target = load_target(message["target"])
        warm = getattr(target, "warm", None)
        if warm is not None:
            warm(**decode(bytes.fromhex(message["warm"])))
    except BaseException as error:
        # Whatever the user's module does at import, SystemExit included, is a start failure to
        # report.
        channel.send({"event": "refused", "error": error_to_wire(error)})
        os._exit(1)
    gc.collect()  # what is garbage may hold descriptors
    if reasons := unsafe_to_fork(own):
        channel.send({"event": "unsafe", "reasons": reasons})
        os._exit(1)
    warnings = doubtful_to_fork(own)
    # What is frozen is never touched by a collection, so its pages stay shared with the workers.
    gc.disable()
    gc.freeze()
    channel.send({"event": "ready", "warnings": warnings})


def _require_version(theirs: str) -> None:
    """These messages are no protocol for others: both ends have to be of one version."""
    if theirs != __version__:
        raise VersionMismatch(
            f"{sys.executable} has snakepit {__version__}, the host {theirs}; install the same "
            "version in both, or use start='spawn', which needs no more than the same protocol",
            details={"ours": __version__, "theirs": theirs},
        )


def _fork_workers(channel: Channel, requests: Sequence[_Request]) -> None:
    """Have a process between fork the workers, which become the keeper's children when it ends.

    It copies the tables of this process's memory as a worker does, a third of a start's work: so
    one forks all that are asked for at the same time.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pids: list[int] = []
    problem = "the process between has ended; is the machine out of memory or processes?"
    try:
        pids = _pids_of_workers(channel, requests)
    except OSError as error:
        problem = str(error)
    for request, pid in zip(requests, pids, strict=False):
        channel.send({"event": "forked", "id": request.id, "pid": pid})
    for request in requests[len(pids) :]:
        channel.send({"event": "fork_failed", "id": request.id, "error": problem})
    for request in requests:
        request.close()


def _pids_of_workers(channel: Channel, requests: Sequence[_Request]) -> list[int]:
    """Fork them; return the pid of each: fewer than were asked for where a fork fails.

    They are the keeper's children now, and nobody is told of them before.

    Raises:
        OSError: not even the process between can be forked.
    """
    keeper = os.getppid()
    read, write = os.pipe()
    try:
        middle = os.fork()
        if middle == 0:
            os.close(read)
            _middle(channel, requests, keeper, write)
    except OSError:
        os.close(read)
        raise
    finally:
        os.close(write)
    with open(read, encoding="ascii") as lines:
        pids = [int(line) for line in lines]
    os.waitpid(middle, 0)
    return pids


def _middle(channel: Channel, requests: Sequence[_Request], keeper: int, write: int) -> None:
    try:
        middle = os.getpid()
        for request in requests:
            pid = os.fork()
            if pid == 0:
                os.close(write)
                channel.close()
                for other in requests:
                    if other is not request:
                        other.close()
                _become_worker(request, keeper, middle)
            os.write(write, b"%d\n" % pid)
    finally:
        os._exit(0)


def _become_worker(request: _Request, keeper: int, middle: int) -> None:
    data, control, mark, *others, output = request.fds
    die_with_parent(keeper, through=middle)
    os.setpgid(0, 0)
    os.dup2(output, 1, inheritable=True)
    os.dup2(output, 2, inheritable=True)
    os.close(output)
    gc.enable()
    _reseed()
    run_worker(
        WorkerDescriptors(data, control, mark, dict(zip(request.inherited, others, strict=True)))
    )


def _reseed() -> None:
    """Give this worker random numbers of its own; the siblings share the template's state."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed()
