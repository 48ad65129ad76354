"""Scenario 65: the host is killed with SIGKILL; nothing of it may be left within a second."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from host_kill import VARIANTS, seconds_until_gone

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


def leftovers() -> set[str]:
    """Sockets and files of ours that outlive processes."""
    folders = {Path(tempfile.gettempdir()), Path("/tmp"), Path("/dev/shm")}
    found = {str(path) for folder in folders for path in folder.glob("*snakepit*")}
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return found | {line.split()[-1] for line in sockets if "snakepit" in line}


@pytest.mark.parametrize("variant", VARIANTS)
def test_65_a_killed_host_leaves_nothing_within_a_second(variant: str) -> None:
    before = leftovers()
    assert seconds_until_gone(variant) < 1.0
    assert leftovers() <= before
