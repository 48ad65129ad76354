"""Scenario 65: the host is killed with SIGKILL; nothing of it may be left within a second."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fault_pool import WORKER, assert_serves
from host_kill import VARIANTS, seconds_until_gone

from snakepit import PythonAdapter

pytestmark = [pytest.mark.alone, pytest.mark.usefixtures("silent_on_stderr")]


def named_things() -> set[str]:
    """Shared memory and sockets of ours that have a name, and so could outlive their process."""
    memory = {str(path) for path in Path("/dev/shm").glob("*snakepit*")}
    sockets = Path("/proc/net/unix").read_text().splitlines()
    return memory | {line.split()[-1] for line in sockets if "snakepit" in line}


@pytest.mark.parametrize("variant", VARIANTS)
def test_65_a_killed_host_leaves_nothing_within_a_second(variant: str, tmp_path: Path) -> None:
    before = named_things()
    assert seconds_until_gone(variant, tmp_path) < 1.0
    assert named_things() <= before
    assert list(tmp_path.iterdir()) == []
    asyncio.run(assert_serves(PythonAdapter(WORKER)))
