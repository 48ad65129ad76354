"""A PostgreSQL server of the tests' own, where its programs are installed.

It keeps its data in a temporary folder, takes connections on a private unix socket, and over TCP on
the loopback with passwords. As root it runs as `nobody`, since PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snakepit.testing import wait_until

PASSWORD = "right-horse"
_PATIENCE = 30.0
# Processes are killed here, never the machine: what the kernel has is safe.
_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "40",
    "listen_addresses": "127.0.0.1",
    "dynamic_shared_memory_type": "mmap",  # /dev/shm is looked at for leaks
}


class PostgresCluster:
    """A server that can be stopped and started again. Close it, or it outlives its folder."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="snakepit-pg-"))
        self._as = _user_options(self._folder)
        self._port = _free_port()
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._run(
                *("initdb", "-D", "data", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"),
                *("--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions"),
            )
            self.start()
            self.execute(f"CREATE ROLE ada LOGIN PASSWORD '{PASSWORD}'")
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["-D", "data", "-k", str(self._folder), "-p", str(self._port)]
        options += [part for name, value in _OPTIONS.items() for part in ("-c", f"{name}={value}")]
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [_program("postgres"), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._as,
            )
        wait_until(self._answers, "PostgreSQL answers", timeout=_PATIENCE)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; connections are ended. With SIGQUIT as if it had crashed."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(_PATIENCE)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """For the block it takes no processor time: whoever asks it gets no answer."""
        process = self._process
        assert process is not None
        frozen = []
        try:
            # The one that starts the others is first.
            for pid in (process.pid, *_children(process.pid)):
                os.kill(pid, signal.SIGSTOP)
                frozen.append(pid)
            yield
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop it and remove its folder."""
        try:
            self.stop(signal.SIGQUIT)
        finally:
            shutil.rmtree(self._folder)

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name} OWNER ada")
        return name

    def emptied_database(self) -> str:
        """The name of a database that has no tables; the same one each time, which is quicker."""
        name = "emptied"
        if not self.execute(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self.execute(f"CREATE DATABASE {name} OWNER ada")
        # A host that was killed a moment ago may still have a session.
        self.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            f"WHERE datname = '{name}'"
        )
        self.execute("DROP SCHEMA IF EXISTS snakepit CASCADE", name)
        return name

    def url(self, database: str) -> str:
        """The URL of a database, over the socket."""
        return f"postgresql://ada@/{database}?host={self._folder}&port={self._port}"

    def tcp_url(self, database: str, *, password: str = PASSWORD, port: int | None = None) -> str:
        """The URL of a database over TCP; `port` is that of a proxy."""
        return f"postgresql://ada:{password}@127.0.0.1:{port or self._port}/{database}"

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens on TCP."""
        return "127.0.0.1", self._port

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the superuser and return its rows."""
        import psycopg

        url = f"postgresql://postgres@/{database}?host={self._folder}&port={self._port}"
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        """What it has logged."""
        return (self._folder / "log").read_text()

    def _answers(self) -> bool:
        import psycopg

        process = self._process
        assert process is not None
        assert process.poll() is None, f"PostgreSQL did not start:\n{self.log()}"
        try:
            self.execute("SELECT")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [_program(program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"


@functools.cache
def why_unavailable() -> str | None:
    """Why no server can be started here; None if one can."""
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        return "psycopg is not installed"
    if _bin_folder() is None:
        return "PostgreSQL's programs are not installed (initdb, postgres)"
    if os.geteuid() == 0 and not _has_user("nobody"):
        return "PostgreSQL does not run as root, and there is no user nobody"
    return None


@contextlib.contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """A server for a `with` block."""
    cluster = PostgresCluster()
    try:
        yield cluster
    finally:
        cluster.close()


@functools.cache
def _bin_folder() -> Path | None:
    found = [Path(path) for path in (shutil.which("initdb"),) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    return found[0].resolve().parent if found else None


def _program(name: str) -> str:
    folder = _bin_folder()
    assert folder is not None, why_unavailable()
    return str(folder / name)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _user_options(folder: Path) -> dict[str, Any]:
    """How its programs are started: in the folder, and not as root."""
    if os.geteuid() != 0:
        return {"cwd": folder}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"cwd": folder, "user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
