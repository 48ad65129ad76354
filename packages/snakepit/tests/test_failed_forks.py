"""A machine that is out of processes or descriptors: what can't be started leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snakepit.link.channels import open_channels
from snakepit.processes import launch, template
from snakepit.processes.channel import Channel
from snakepit.processes.template_client import TemplateProcess
from snakepit.processes.tree import ProcessTree, acquire_tree, release_tree
from snakepit.python_adapter import PythonAdapter


def no_fork() -> int:
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def descriptors() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def test_a_keeper_that_can_not_fork_says_so_and_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = descriptors()
    monkeypatch.setattr(os, "fork", no_fork)
    for _ in range(3):
        with pytest.raises(OSError, match="unavailable"):
            launch.start_program(["/bin/true"], {}, None, [1])
    assert descriptors() == before


def test_a_template_that_can_not_fork_says_so_and_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    channel, host = Channel(ours), Channel(theirs)
    before = descriptors()
    monkeypatch.setattr(os, "fork", no_fork)
    for number in range(3):
        template._fork_worker(channel, {"op": "fork", "id": number, "inherited": []}, [os.dup(1)])
    assert descriptors() == before
    events = [message for message, _ in host.receive()]
    assert [event["id"] for event in events] == [0, 1, 2]
    assert all("unavailable" in event["error"] for event in events)
    channel.close()
    host.close()


# --- no descriptors ------------------------------------------------------------------------------


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """This process may open so many more, and no others."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in taken:
            os.close(fd)


def fails_without_a_trace(start: Callable[[], object], *, most: int) -> None:
    """Each descriptor that ``start`` opens is the one that is too many, up to its last one."""
    before = descriptors()
    for count in range(most):
        with descriptors_left(count), pytest.raises(OSError, match="Too many open files"):
            start()
        assert descriptors() == before, count


def test_channels_that_can_not_be_opened_leave_no_descriptors() -> None:
    fails_without_a_trace(open_channels, most=7)


async def test_a_keeper_that_can_not_be_started_leaves_no_descriptors() -> None:
    fails_without_a_trace(ProcessTree, most=4)


async def test_a_template_that_can_not_be_started_leaves_no_descriptors() -> None:
    spec = PythonAdapter("pool_worker:Worker")._process_spec()
    tree = acquire_tree()
    try:
        fails_without_a_trace(lambda: TemplateProcess(tree, spec), most=4)
    finally:
        await release_tree(tree)
