"""Starting the processes of `storage_child`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("storage_child.py")


@contextlib.asynccontextmanager
async def child(*arguments: str, prefix: tuple[str, ...] = ()) -> AsyncIterator[Process]:
    """A running child; it is killed at the end if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        *prefix, sys.executable, str(SCRIPT), *arguments, stdin=PIPE, stdout=PIPE, env=os.environ
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def told(process: Process) -> dict[str, Any]:
    """The next thing that a child says."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, f"the child ended with {await process.wait()}"
    said: dict[str, Any] = json.loads(line)
    return said


async def result_of(*arguments: str, prefix: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """All that a child says until its end."""
    async with child(*arguments, prefix=prefix) as process:
        assert process.stdout is not None
        said = (await process.stdout.read()).splitlines()
        assert await process.wait() == 0
    return [json.loads(line) for line in said]
