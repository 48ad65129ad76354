"""A machine that is out of processes or descriptors: what can't be started leaves nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from snakepit.adapters.python_adapter import PythonAdapter
from snakepit.link.channels import open_channels
from snakepit.processes import launch, template
from snakepit.processes.channel import Channel, ChannelClosed
from snakepit.processes.linux import children_of
from snakepit.processes.template_client import TemplateProcess
from snakepit.processes.tree import ProcessTree, acquire_tree, release_tree


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


class Served:
    """A channel of a template in this process, and the host's end of it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self.host = Channel(ours), Channel(theirs)

    def fork(self, count: int) -> None:
        requests = [template._Request(number, [], [os.dup(1)]) for number in range(count)]
        template._fork_workers(self.channel, requests)

    def events(self) -> list[dict[str, Any]]:
        return [message for message, _ in self.host.receive()]


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served()
    before = descriptors()
    yield served
    assert descriptors() == before
    served.channel.close()
    served.host.close()


def test_a_template_that_can_not_fork_says_so_and_leaks_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fork", no_fork)
    served.fork(1)
    served.fork(2)
    events = served.events()
    assert [event["id"] for event in events] == [0, 0, 1]
    assert all("unavailable" in event["error"] for event in events)


def test_of_workers_that_are_forked_together_those_that_can_be_are(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks, fork = iter(range(4)), os.fork

    def scarce() -> int:
        return fork() if next(forks) < 3 else no_fork()  # the process between, and two workers

    monkeypatch.setattr(os, "fork", scarce)
    monkeypatch.setattr(template, "_become_worker", lambda *_: os._exit(0))
    served.fork(4)
    events = served.events()
    assert [event["event"] for event in events] == [*["forked"] * 2, *["fork_failed"] * 2]
    assert [event["id"] for event in events] == [0, 1, 2, 3]
    assert len({event["pid"] for event in events[:2]}) == 2


def test_nobody_hears_of_workers_before_the_process_between_has_ended(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper would take them for somebody else's children."""
    others = set(children_of(os.getpid()))  # such as a keeper
    children: list[set[int]] = []

    def look(_: object) -> None:
        children.append(set(children_of(os.getpid())) - others)

    monkeypatch.setattr(template, "_become_worker", lambda *_: os._exit(0))
    monkeypatch.setattr(served.channel, "send", look)
    served.fork(3)
    assert children == [set(), set(), set()]


def test_what_is_asked_for_at_the_same_time_is_forked_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served, batches = Served(), []

    def note(_: Channel, requests: Sequence[template._Request]) -> None:
        batches.append([request.id for request in requests])
        for request in requests:
            request.close()

    monkeypatch.setattr(template, "_fork_workers", note)
    for number in range(16):
        served.host.send({"op": "fork", "id": number, "inherited": []}, (1,))
    served.host.close()
    with pytest.raises(ChannelClosed):
        template._serve(served.channel)
    served.channel.close()
    assert batches == [list(range(8)), list(range(8, 16))]


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
