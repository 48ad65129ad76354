"""A pool with a control socket in a folder of the test's own, and commands that look at it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from snakepit import InlineAdapter, Pool, PythonAdapter
from snakepit.control.server import CONTROL_VARIABLE
from snakepit.testing import Gate

SNAKEPIT = str(Path(sys.executable).with_name("snakepit"))
TESTS = Path(__file__).parent


def use_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pools and commands from now on keep their control sockets below ``folder``."""
    monkeypatch.setenv(CONTROL_VARIABLE, "1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)


@asynccontextmanager
async def watched_pool(*, inline: bool = False, **options: Any) -> AsyncIterator[Pool]:
    """A pool with a control socket. ``inline``: without processes, for what has to do with none."""
    target = "pool_worker:Worker"
    adapter = InlineAdapter(target) if inline else PythonAdapter(target)
    given: dict[str, Any] = {"size": 1, "name": "watched", **options}
    async with Pool(adapter, **given) as pool:
        yield pool


@asynccontextmanager
async def held_call(pool: Pool, *, session_id: str | None = None) -> AsyncIterator[None]:
    """A call that runs as long as the block does."""
    with Gate() as gate:
        args = {"gate": gate.key, "note": "SECRET"}
        call = asyncio.create_task(pool.execute("wait_at_gate", args, session_id=session_id))
        await gate.reached()
        try:
            yield
        finally:
            gate.open()
            await call


def snakepit(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "cwd": TESTS,
        **options,
    }
    command = [SNAKEPIT, *arguments]
    return subprocess.run(command, text=True, check=False, timeout=50, **given)


async def asnakepit(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """As ``snakepit``, while this process serves its pool."""
    return await asyncio.to_thread(snakepit, *arguments, **options)


def sockets_below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.sock"))


def make_old(path: Path) -> None:
    """Let a socket look as if it had been there for long."""
    os.utime(path, (0, 0))
