"""A machine that is out of processes: what keeper and template do when they can't fork."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from snakepit.processes import launch, template
from snakepit.processes.channel import Channel


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
