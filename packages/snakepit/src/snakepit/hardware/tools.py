"""Running the tools that tell about hardware. They hang when a driver does."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final

# Seconds. The slowest that is known to be well wakes up eight sleeping graphics processors.
_PATIENCE: Final = 10.0
_END_PATIENCE: Final = 0.5
_MOST_BYTES: Final = 1 << 20


def run_tool(argv: Sequence[str], *, patience: float = _PATIENCE) -> str | None:
    """What a program prints. None if there is no such program, it fails, takes longer than
    ``patience`` seconds, or prints more than 1 MiB. Blocks meanwhile.
    """
    path = shutil.which(argv[0])
    if path is None:
        return None
    try:
        process = subprocess.Popen(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError:
        return None
    assert process.stdout is not None
    with process.stdout as output:
        printed = _read(output.fileno(), time.monotonic() + patience)
    return printed if _ended_well(process, killed=printed is None) else None


def _read(fd: int, end: float) -> str | None:
    """All that comes from ``fd`` until its end; None if that is late or far."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    data = bytearray()
    while poller.poll(max(0.0, end - time.monotonic()) * 1000):
        chunk = os.read(fd, _MOST_BYTES)
        if not chunk:
            return data.decode(errors="replace")
        data += chunk
        if len(data) > _MOST_BYTES:
            break
    return None


def _ended_well(process: subprocess.Popen[bytes], *, killed: bool) -> bool:
    for must_end in (killed, True):
        if must_end:
            # With what it has started. It may wait in a driver, where nothing reaches it; then it
            # is left to its fate.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_END_PATIENCE) == 0
    return False
