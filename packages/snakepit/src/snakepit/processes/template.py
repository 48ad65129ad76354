"""The template: a single-threaded fork server that has imported and exercised what its workers
need.

Runs in a process of its own, a child of the keeper. Workers are forked twice, so that the keeper
becomes their parent and can read how they ended, also after the template's own death.

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


def main() -> None:
    """Serve fork requests on the channel, descriptor 3, until the host closes it."""
    channel = Channel(socket.socket(fileno=3))
    try:
        _serve(channel)
    except ChannelClosed:
        os._exit(0)


def _serve(channel: Channel) -> None:
    poller = select.poll()
    poller.register(channel, select.POLLIN)
    while True:
        poller.poll()
        for message, fds in channel.receive():
            if message["op"] == "prepare":
                _prepare(channel, message)
            else:
                _fork_worker(channel, message, fds)


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


def _fork_worker(channel: Channel, message: Message, fds: list[int]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = _fork_twice(channel, fds, message["inherited"])
    except OSError as error:
        channel.send({"event": "fork_failed", "id": message["id"], "error": str(error)})
    else:
        channel.send({"event": "forked", "id": message["id"], "pid": pid})
    finally:
        for fd in fds:
            os.close(fd)


def _fork_twice(channel: Channel, fds: list[int], inherited: list[int]) -> int:
    """Fork a worker that becomes the keeper's child; return its pid."""
    keeper = os.getppid()
    pid_read, pid_write = os.pipe()
    try:
        middle = os.fork()
        if middle == 0:
            _middle(channel, fds, inherited, keeper, pid_read, pid_write)
    except OSError:
        os.close(pid_read)
        raise
    finally:
        os.close(pid_write)
    answer = os.read(pid_read, 32)
    os.close(pid_read)
    os.waitpid(middle, 0)
    if not answer:
        raise OSError("the second fork failed; is the machine out of memory or processes?")
    return int(answer)


def _middle(
    channel: Channel,
    fds: list[int],
    inherited: list[int],
    keeper: int,
    pid_read: int,
    pid_write: int,
) -> None:
    try:
        middle = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(pid_read)
            os.close(pid_write)
            channel.close()
            _become_worker(fds, inherited, keeper, middle)
        os.write(pid_write, str(pid).encode())
    finally:
        os._exit(0)


def _become_worker(fds: list[int], inherited: list[int], keeper: int, middle: int) -> None:
    data, control, mark, *others, output = fds
    die_with_parent(keeper, through=middle)
    os.setpgid(0, 0)
    os.dup2(output, 1, inheritable=True)
    os.dup2(output, 2, inheritable=True)
    os.close(output)
    gc.enable()
    _reseed()
    run_worker(WorkerDescriptors(data, control, mark, dict(zip(inherited, others, strict=True))))


def _reseed() -> None:
    """Give this worker random numbers of its own; the siblings share the template's state."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        numpy.random.seed()
