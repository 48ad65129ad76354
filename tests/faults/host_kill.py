"""Start a host, kill it from outside, and see what is left; used by a test and by the soak."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fault_pool import import_path, processes
from processes import wait_until

MARK = "SNAKEPIT_FAULT_HOST"
#: Variant: how many processes it has at least when it is ready, the host itself included.
VARIANTS = {
    "serving": 6,
    "spawned": 5,
    "concurrent": 6,
    "never_served": 6,
    "two_pools": 8,
    "starting": 6,
    "starting_spawned": 5,
    "importing": 3,
    "families": 13,
    "forked": 7,
}


def marked(mark: str) -> set[int]:
    """The living processes that inherited ``mark``, whoever their parent is."""
    found = set()
    for process in processes().values():
        with suppress(OSError):
            environment = Path(f"/proc/{process.pid}/environ").read_bytes()
            if mark.encode() in environment and process.state not in "ZX":
                found.add(process.pid)
    return found


@contextmanager
def killed_host(variant: str, folder: Path, delay: float = 0.0) -> Iterator[tuple[str, set[int]]]:
    """A host that was killed with SIGKILL under load; yields its mark and whom to spare.

    ``folder`` is what its processes take for the place of temporary files.
    """
    mark = secrets.token_hex(16)
    spare: set[int] = set()
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fault_host.py")), variant],
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            MARK: mark,
            "PYTHONPATH": import_path(),
            "TMPDIR": str(folder),
        },
    ) as host:
        try:
            assert host.stdout is not None
            while (line := host.stdout.readline()) != "ready\n":
                assert line.startswith("spare"), f"the host ended early: {line!r}"
                spare.add(int(line.split()[1]))
            wait_until(lambda: len(marked(mark)) >= VARIANTS[variant], f"all are there: {variant}")
            threading.Event().wait(delay)
            host.kill()
            yield mark, spare
        finally:
            for pid in marked(mark):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def seconds_until_gone(variant: str, folder: Path, delay: float = 0.0) -> float:
    """How long after the host's death a process of it was left."""
    with killed_host(variant, folder, delay) as (mark, spare):
        return wait_until(lambda: not marked(mark) - spare, f"{variant}: nothing is left")
