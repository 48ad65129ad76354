"""What in a process does not survive a fork, or must not be shared by the processes forked from it.

Descriptors are told from the template's own by a look at them before any code of a user has run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

#: The open descriptors of a process, and what each leads to.
Descriptors = Mapping[int, str]

_SQLITE_HEADER: Final = b"SQLite format 3\0"
_ADVICE: Final = "opened in __init__, each worker has its own"


def open_descriptors() -> dict[int, str]:
    """What this process has open; nothing where /proc does not tell."""
    try:
        numbers = os.listdir("/proc/self/fd")
    except FileNotFoundError:
        return {}
    found = {}
    for number in numbers:
        with contextlib.suppress(OSError):  # the listing's own
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
    return found


def unsafe_to_fork(own: Descriptors) -> list[str]:
    """What in this process does not survive a fork; empty when it is safe.

    ``own``: what it had open before it ran code of others.
    """
    reasons = [
        f"a running thread: {thread.name}"
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    ]
    hidden = _native_thread_count() - threading.active_count()
    if hidden > 0:
        reasons.append(f"{hidden} native thread(s) started by an imported library")
    if "grpc._cython.cygrpc" in sys.modules:
        reasons.append("grpc is imported, which does not survive a fork")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        reasons.append("CUDA is initialized (by torch)")
    opened = _opened_since(own)
    reasons += held_devices(opened.values())
    if shared := _unshareable(opened):
        reasons.append(f"open since import or warm(): {', '.join(shared)} ({_ADVICE})")
    return reasons


def doubtful_to_fork(own: Descriptors) -> list[str]:
    """What the processes forked from this one can share, but perhaps should not.

    Datagram sockets. Handlers of logs and metrics (syslog, statsd) open them at import and only
    send; a datagram arrives whole, whoever sent it. An answer would go to any of the processes.
    """
    return [
        f"{each.text}, open since import or warm(), is shared by all workers ({_ADVICE})"
        for each in _sockets(_opened_since(own))
        if each.is_datagram
    ]


def held_devices(paths: Iterable[str]) -> list[str]:
    """Which drivers of accelerators this process has initialized, by the files it holds open.

    Asking NVIDIA's library for the devices opens others, and does survive a fork.
    """
    held = {path for path in paths if path in ("/dev/nvidia-uvm", "/dev/kfd")}
    return [
        f"the driver of an accelerator is initialized ({path} is open)" for path in sorted(held)
    ]


def _native_thread_count() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def _opened_since(own: Descriptors) -> Descriptors:
    now = open_descriptors()
    return {fd: now[fd] for fd in sorted(now) if own.get(fd) != now[fd]}


def _unshareable(opened: Descriptors) -> list[str]:
    """What siblings can't have in common: what they send and receive, or wait for, or lock."""
    loops = [
        f"an event loop, or other use of epoll (descriptor {fd})"
        for fd, path in opened.items()
        if path == "anon_inode:[eventpoll]"
    ]
    databases = {path for fd, path in opened.items() if _is_database(fd, path)}
    return [
        *(each.text for each in _sockets(opened) if not each.is_datagram),
        *loops,
        *(f"the SQLite database {_printable(path)}" for path in sorted(databases)),
    ]


def _printable(path: str) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


# --- sockets -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Socket:
    text: str
    is_datagram: bool


def _sockets(opened: Descriptors) -> Iterator[_Socket]:
    return (_look_at(fd) for fd, path in opened.items() if path.startswith("socket:"))


def _look_at(fd: int) -> _Socket:
    try:
        sock = socket.socket(fileno=fd)
    except OSError:  # of a kind that Python does not know
        return _Socket(f"a socket (descriptor {fd})", is_datagram=False)
    try:
        return _Socket(_describe_socket(sock), _is_datagram(sock))
    finally:
        sock.detach()


def _is_datagram(sock: socket.socket) -> bool:
    return sock.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)


def _describe_socket(sock: socket.socket) -> str:
    with contextlib.suppress(OSError):  # not connected
        peer = _address_text(sock.getpeername())
        return f"a connection to {peer}" if peer else f"a socket pair's end ({sock.fileno()})"
    own = ""
    with contextlib.suppress(OSError):  # of a family that can't tell
        own = _address_text(sock.getsockname())
        if not _is_datagram(sock) and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"a socket that listens at {own}"
    return f"a socket at {own}" if own else f"a socket (descriptor {sock.fileno()})"


def _address_text(address: object) -> str:
    match address:
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case bytes():  # without a place in the file system
            return address.replace(b"\0", b"@", 1).decode(errors="backslashreplace")
        case str():
            return _printable(address)
        case _:
            return str(address)


# --- databases -----------------------------------------------------------------------------------


def _is_database(fd: int, path: str) -> bool:
    if not path.startswith("/") or _reopens_after_fork(path):
        return False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return False
        if status.st_size == 0:
            return path in _files_of_sqlite3()
        # Not by its path: to close any descriptor of a file ends all locks that its process has.
        return os.pread(fd, len(_SQLITE_HEADER), 0) == _SQLITE_HEADER
    except OSError:  # it can't be read
        return False


def _reopens_after_fork(path: str) -> bool:
    """Whether a database is diskcache's, which opens its own in each process."""
    return "diskcache" in sys.modules and path.endswith("/cache.db")


def _files_of_sqlite3() -> set[str]:
    """The files of Python's own connections: one to which nothing was written has no header."""
    if "sqlite3" not in sys.modules:
        return set()
    import sqlite3

    files = set()
    for each in gc.get_objects():
        if issubclass(type(each), sqlite3.Connection):  # isinstance would ask proxies
            with contextlib.suppress(sqlite3.Error):  # it is closed, or another thread's
                cursor = sqlite3.Cursor(each)
                cursor.row_factory = None
                files |= {file for _, _, file in cursor.execute("PRAGMA database_list")}
    return files
