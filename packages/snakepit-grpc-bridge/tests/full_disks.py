"""Ways in which there is no room for a SQLite database any more, for the block of a `with`."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: Bytes that there are for a database, with its log.
ROOM = 6_000_000


@functools.cache
def can_mount() -> bool:
    """Whether a process may have file systems of its own here."""
    if shutil.which("unshare") is None:
        return False
    mount = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(mount, capture_output=True, timeout=10, check=False).returncode == 0


def on_a_disk_of_its_own(folder: Path, size: int) -> tuple[str, ...]:
    """What to write before a command so that it sees a small disk in a folder."""
    script = f'mount -t tmpfs -o size={size} none {folder} && exec "$@"'
    return ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh")


@contextlib.contextmanager
def full_disk(url: str) -> Iterator[None]:
    """All but `ROOM` of the disk is taken."""
    ballast = Path(url.removeprefix("sqlite:///")).with_name("ballast")
    free = os.statvfs(ballast.parent)
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - ROOM)
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def limited_files(_: str) -> Iterator[None]:
    """No file of this process may be larger than `ROOM`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL = {"full_disk": full_disk, "limited_files": limited_files}
