"""What a template refuses to fork with, and names; and what it forks with all the same."""

from __future__ import annotations

import logging
import re
import textwrap
from pathlib import Path

import pytest

from snakepit import Pool, PythonAdapter
from snakepit.processes.linux import IS_LINUX
from snakepit.testing import EventRecorder

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="descriptors are told by /proc")

WORKER = """
import snakepit


class Worker:
    @snakepit.command
    def hello(self) -> str:
        return "hello"
"""

UNSAFE = {
    "connected": (
        """
        import socket
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        taken, _ = server.accept()
        server.close()
        """,
        r"a connection to 127\.0\.0\.1:\d+",
    ),
    "listening": (
        """
        import socket
        server = socket.create_server(("127.0.0.1", 0))
        """,
        r"a socket that listens at 127\.0\.0\.1:\d+",
    ),
    "listening_by_name": (
        """
        import os, socket
        server = socket.socket(socket.AF_UNIX)
        server.bind(f"\\0snakepit-fork-safety-{os.getpid()}")
        server.listen()
        """,
        r"a socket that listens at @snakepit-fork-safety-\d+",
    ),
    "new": (
        """
        import socket
        unused = socket.socket()
        """,
        r"a socket at 0\.0\.0\.0:0",
    ),
    "socket_pair": (
        """
        import socket
        pair = socket.socketpair()
        """,
        r"a socket pair's end \(\d+\), a socket pair's end \(\d+\)",
    ),
    "event_loop": (
        """
        import asyncio
        loop = asyncio.new_event_loop()
        """,
        r"an event loop, or other use of epoll \(descriptor \d+\)",
    ),
    "empty_database": (
        """
        import sqlite3
        database = sqlite3.connect(f"{__file__}.sqlite")
        """,
        r"the SQLite database /\S+/empty_database\.py\.sqlite",
    ),
    "database": (
        """
        import sqlite3
        database = sqlite3.connect(f"{__file__}.sqlite")
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE IF NOT EXISTS numbers (x)")
        """,
        r"the SQLite database /\S+/database\.py\.sqlite \(",
    ),
    "grpc_user": (
        """
        import grpc._cython.cygrpc
        """,
        r"grpc is imported",
    ),
    "native_thread": (
        """
        import ctypes
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)
        """,
        r"1 native thread\(s\) started by an imported library",
    ),
    "python_thread": (
        """
        import threading
        threading.Thread(target=threading.Event().wait, name="culprit", daemon=True).start()
        """,
        r"a running thread: culprit",
    ),
}

SAFE = {
    "closed": """
        import asyncio, contextlib, socket, sqlite3

        async def main() -> None:
            await asyncio.sleep(0)

        asyncio.run(main())
        asyncio.new_event_loop().close()
        for end in socket.socketpair():
            end.close()
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).close()
        with contextlib.closing(sqlite3.connect(f"{__file__}.sqlite")) as database:
            database.execute("CREATE TABLE IF NOT EXISTS numbers (x)")
        """,
    "garbage": """
        import socket
        ring = [socket.socketpair()]
        ring.append(ring)
        del ring
        """,
    "files": """
        import sqlite3
        memory = sqlite3.connect(":memory:")
        empty = open(f"{__file__}.empty", "w+")
        text = open(__file__)
        """,
    # It opens its databases anew in each process.
    "diskcache_user": """
        import diskcache, sqlite3
        database = sqlite3.connect(f"{diskcache.FOLDER}/cache.db")
        database.execute("CREATE TABLE IF NOT EXISTS numbers (x)")
        """,
}

DATAGRAMS = """
    import socket
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    """


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that workers can import, with stand-ins for heavy libraries."""
    stand_in = tmp_path / "grpc" / "_cython"
    stand_in.mkdir(parents=True)
    for module in (stand_in.parent / "__init__.py", stand_in / "__init__.py"):
        module.touch()
    (stand_in / "cygrpc.py").touch()
    (tmp_path / "diskcache.py").write_text(f"FOLDER = {str(tmp_path)!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write_module(folder: Path, name: str, source: str) -> str:
    (folder / f"{name}.py").write_text(textwrap.dedent(source) + WORKER)
    return f"{name}:Worker"


async def is_forked(target: str) -> bool:
    """Whether the workers of a pool are forked; they serve either way."""
    with EventRecorder() as events:
        async with Pool(PythonAdapter(target), size=1) as pool:
            assert await pool.execute("hello") == "hello"
    return bool(events.assert_told("snakepit.worker.spawned").metadata["forked"])


@pytest.mark.parametrize("name", UNSAFE)
async def test_with_a_culprit_workers_are_spawned_and_a_warning_names_it(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, culprit = UNSAFE[name]
    target = write_module(folder, name, source)
    assert not await is_forked(target)
    (warning,) = (each for each in caplog.records if each.levelno >= logging.WARNING)
    assert re.fullmatch(f"{target} is not forked but spawned: .*{culprit}.*", warning.getMessage())


async def test_what_warm_leaves_open_counts_too(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = folder / "warmed.py"
    module.write_text(
        "import socket\n"
        + WORKER
        + "\n    @classmethod\n    def warm(cls):\n        cls.pair = socket.socketpair()\n"
    )
    assert not await is_forked("warmed:Worker")
    assert "open since import or warm()" in caplog.text
    assert "opened in __init__, each worker has its own" in caplog.text


@pytest.mark.parametrize("name", SAFE)
async def test_what_is_closed_or_can_be_shared_is_no_culprit(
    name: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await is_forked(write_module(folder, name, SAFE[name])), caplog.text
    assert caplog.text == ""


async def test_with_datagram_sockets_it_is_forked_and_a_warning_names_them(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await is_forked(write_module(folder, "datagrams", DATAGRAMS))
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("datagrams:Worker is forked all the same: a socket at 127.0.0.1:")
    assert "a connection to 127.0.0.1:" in second
