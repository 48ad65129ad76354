"""Where control sockets are: in a folder that only their user can enter.

A host that is killed leaves its socket behind. Nobody listens on it any more, so whoever looks
next can tell, and removes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

_SUFFIX: Final = ".sock"
# A younger socket may be one that its owner is about to listen on.
_LEAST_AGE_S: Final = 1.0


def bind_socket() -> socket.socket:
    """A listening socket with a name of its own, not blocking.

    Raises:
        OSError: there is no folder for it, or its path would be too long.
    """
    path = _private_folder() / f"{os.getpid()}-{os.urandom(4).hex()}{_SUFFIX}"
    server = socket.socket(socket.AF_UNIX)
    try:
        server.setblocking(False)
        server.bind(str(path))
        server.listen()
    except BaseException:
        server.close()
        raise
    return server


def remove_socket(server: socket.socket) -> None:
    """Remove a socket that is not to be found any more."""
    _remove(Path(server.getsockname()))


def find_sockets() -> list[Path]:
    """The paths of all control sockets of this user, those of ended hosts included."""
    return [
        path
        for folder in filter(_is_private, _folders())
        for path in sorted(folder.glob(f"*{_SUFFIX}"))
    ]


def sweep_sockets(*, dry_run: bool = False) -> list[Path]:
    """Remove the sockets that ended hosts have left; return their paths.

    Example::

        for path in sweep_sockets(dry_run=True):
            print(path)
    """
    left = [path for path in find_sockets() if _is_left(path)]
    for path in left:
        if not dry_run:
            _remove(path)
    return left


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _folders() -> list[Path]:
    """The folders that may hold sockets, the preferred one first. Host and command may differ in
    their environment, so a command looks into all.
    """
    folders = [Path(tempfile.gettempdir(), f"snakepit-{os.geteuid()}")]
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if runtime.is_absolute():
        folders.insert(0, runtime / "snakepit")
    return folders


def _private_folder() -> Path:
    """The first of the folders that can be had."""
    problems = []
    for folder in _folders():
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            problems.append(str(error))
        else:
            if _is_private(folder):
                return folder
            problems.append(f"{folder} is open to others, or belongs to another user")
    raise OSError("; ".join(problems))


def _is_private(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not stat.S_IMODE(found.st_mode) & 0o077
    )


def _is_left(path: Path) -> bool:
    """Whether nobody listens on a socket."""
    try:
        if time.time() - path.lstat().st_mtime < _LEAST_AGE_S:
            return False
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(str(path))
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # it is busy, or has just been removed
    return False
