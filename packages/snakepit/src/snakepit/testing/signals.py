"""What hits a process from outside: signals to workers, templates and keepers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from snakepit.adapters.process_adapter import ProcessAdapter
from snakepit.adapters.python_adapter import PythonAdapter
from snakepit.pool.pool import Pool
from snakepit.testing.waiting import alive, wait_until


def worker_pid(pool: Pool, worker_id: str | None = None) -> int:
    """The process id of a worker of ``pool``; of the oldest one unless an id is given.

    Raises:
        LookupError: there is no such worker, or it is no process.
    """
    for info in pool.workers():
        if info.pid is not None and worker_id in (None, info.worker_id):
            return info.pid
    raise LookupError(f"{pool!r} has no process of worker {worker_id or '(any)'}")


def signal_process(pid: int, number: int) -> bool:
    """Send a signal; false if the process was gone already, so that nothing was sent."""
    if pid <= 0:
        raise ValueError(f"{pid} is no process id; 0 would be the process group of the tests")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_worker(pool: Pool, worker_id: str | None = None) -> int:
    """SIGKILL a worker of ``pool`` (the oldest unless an id is given); return its process id.

    The signal is delivered when this returns; that the pool has noticed, it does not say.

    Raises:
        LookupError: there is no such worker.

    Example::

        pid = kill_worker(pool)
        await until(lambda: pool.stats().ready == 2, "the worker is replaced")
    """
    return _kill(worker_pid(pool, worker_id))


def kill_template(adapter: PythonAdapter) -> int:
    """SIGKILL the template of an adapter, from which its workers are forked; return its pid.

    Raises:
        LookupError: it has no living template: it spawns its workers, or has started none.
    """
    pid = adapter.template_pid
    if pid is None:
        raise LookupError(f"{adapter!r} has no template process")
    return _kill(pid)


def kill_keeper(adapter: ProcessAdapter) -> int:
    """SIGKILL the keeper, parent of all worker processes of this event loop; return its pid.

    Raises:
        LookupError: it has started no process yet.
    """
    pid = adapter.keeper_pid
    if pid is None:
        raise LookupError(f"{adapter!r} has no keeper process")
    return _kill(pid)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Freeze a process with SIGSTOP; it goes on at the end of the block, however that is left.

    Example::

        with frozen(worker_pid(pool)):
            ...  # alive, but answers nothing
    """
    if not signal_process(pid, signal.SIGSTOP):
        raise LookupError(f"process {pid} is gone, so it can't be frozen")
    try:
        if Path("/proc/self").exists():
            wait_until(lambda: _is_stopped(pid), f"process {pid} has stopped")
        yield
    finally:
        signal_process(pid, signal.SIGCONT)


def _kill(pid: int) -> int:
    signal_process(pid, signal.SIGKILL)
    # SIGKILL is asynchronous; the test wants the process dead, not about to die.
    wait_until(lambda: not alive(pid), f"process {pid} is dead")
    return pid


def _is_stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in "tTZX"
