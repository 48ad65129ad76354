"""The leak checker finds each kind of leak, and waits for what goes away by itself.

What a sample leaves is taken away by its ExitStack: these very tests are leak-checked too.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from snakepit import Pool, PythonAdapter
from snakepit.testing import LeakError, LeakKind, alive, assert_no_leaks, wait_until
from snakepit.testing.leaks import Snapshot, compare, kill_new_processes

SHORT = 0.05


def child(after: ExitStack) -> None:
    process = after.enter_context(
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    )
    after.callback(process.kill)


def oddly_named(after: ExitStack) -> None:
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'caf\\xc3', 0, 0, 0); print(); input()"
    process = after.enter_context(
        subprocess.Popen(
            [sys.executable, "-u", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    )
    after.callback(process.kill)
    assert process.stdout is not None
    process.stdout.readline()


def zombie(after: ExitStack) -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    after.callback(os.waitpid, pid, 0)


def orphan(after: ExitStack) -> None:
    shell = subprocess.run(
        ["/bin/sh", "-c", "sleep 31 >/dev/null 2>&1 & echo $!"], check=True, stdout=subprocess.PIPE
    )
    pid = int(shell.stdout)
    after.callback(wait_until, lambda: not alive(pid), "the orphan is dead")
    after.callback(os.kill, pid, 9)


def descriptor(after: ExitStack) -> None:
    for fd in os.pipe():
        after.callback(os.close, fd)


def thread(after: ExitStack) -> None:
    end = threading.Event()
    left = threading.Thread(target=end.wait, name="left-behind")
    left.start()
    after.callback(left.join)
    after.callback(end.set)


def shared_memory(after: ExitStack) -> None:
    fd, path = tempfile.mkstemp(dir="/dev/shm", prefix="left-behind-")
    os.close(fd)
    after.callback(os.unlink, path)


def mapping(after: ExitStack) -> None:
    fd = os.memfd_create("left-behind")
    os.ftruncate(fd, 4096)
    memory = after.enter_context(mmap.mmap(fd, 4096))
    memory[0] = 1
    os.close(fd)


LEAKS: dict[LeakKind, list[tuple[Callable[[ExitStack], None], str]]] = {
    LeakKind.PROCESS: [
        (child, r"process \d+ \(\w\): .*input\(\)"),
        (oddly_named, r"process \d+ \(\w\): .*prctl"),
        (zombie, r"process \d+ \(Z\)"),
        (orphan, r"process \d+ \(\w\): (sleep 31|/bin/sh)"),
    ],
    LeakKind.DESCRIPTOR: [(descriptor, r"descriptor \d+: pipe:")],
    LeakKind.THREAD: [(thread, "thread left-behind")],
    LeakKind.SHARED_MEMORY: [(shared_memory, "shared memory left-behind-")],
    LeakKind.MAPPING: [(mapping, r"mapping \d+ /memfd:left-behind")],
}


@pytest.mark.parametrize(
    ("kind", "leave", "text"),
    [(kind, leave, text) for kind, samples in LEAKS.items() for leave, text in samples],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_kind_of_leak_is_found(
    kind: LeakKind, leave: Callable[[ExitStack], None], text: str
) -> None:
    with ExitStack() as after, pytest.raises(LeakError) as caught, assert_no_leaks(SHORT):
        leave(after)
    assert any(leak.kind is kind and re.search(text, str(leak)) for leak in caught.value.leaks), (
        caught.value
    )
    assert text_of_pids(caught.value) or kind is not LeakKind.PROCESS


def text_of_pids(error: LeakError) -> list[int]:
    return [leak.pid for leak in error.leaks if leak.pid is not None]


async def test_a_task_is_found() -> None:
    end = asyncio.Event()
    with pytest.raises(LeakError, match=r"task <Task .*Event\.wait"):
        async with assert_no_leaks(SHORT):
            task = asyncio.create_task(end.wait())
    end.set()
    await task


async def test_what_goes_away_in_time_is_no_leak() -> None:
    async with assert_no_leaks() as check:
        task = asyncio.create_task(asyncio.sleep(0))
        timer = threading.Timer(SHORT, int)
        timer.start()
        read, write = os.pipe()
        for fd in (read, write):
            asyncio.get_running_loop().call_later(SHORT, os.close, fd)
    assert task.done()
    assert check.leaks == ()


STRANGER = """
import mmap, os, sys, tempfile
if os.fork():
    os._exit(0)
fd, path = tempfile.mkstemp(dir="/dev/shm")
if sys.argv[1] == "map":
    os.ftruncate(fd, 4096)
    kept = mmap.mmap(fd, 4096)
    os.close(fd)
print(path, flush=True)
sys.stdin.read()
os.unlink(path)
"""


@pytest.mark.parametrize("how", ["map", "open"])
def test_the_shared_memory_of_strangers_is_not_ours(how: str) -> None:
    """The folder is the machine's: other programs' files come and go in it."""
    before = Snapshot.take()
    with subprocess.Popen(
        [sys.executable, "-c", STRANGER, how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "SNAKEPIT_TEST_RUN"},
        text=True,
    ) as parent:
        assert parent.stdout is not None
        file = Path(parent.stdout.readline().strip())
        parent.wait()
        assert file.exists()
        assert [leak for leak in compare(before) if leak.kind is LeakKind.SHARED_MEMORY] == []
    wait_until(lambda: not file.exists(), "the stranger has ended")


async def test_a_closed_pool_leaves_nothing_and_an_open_one_does() -> None:
    async with assert_no_leaks(), Pool(PythonAdapter("pool_worker:Worker"), size=2) as pool:
        assert await pool.execute("add", {"x": 1}) == 2

    pool = Pool(PythonAdapter("pool_worker:Worker"), size=1)
    with pytest.raises(LeakError) as caught:
        async with assert_no_leaks(SHORT):
            await pool.start()
    await pool.aclose()
    found = str(caught.value)
    assert "snakepit.processes.keeper" in found
    assert "snakepit.processes.template" in found
    assert len(text_of_pids(caught.value)) == 3  # keeper, template, worker


def fail_after(leave: Callable[[ExitStack], None], after: ExitStack) -> None:
    leave(after)
    raise ZeroDivisionError


def test_the_blocks_own_error_is_not_hidden() -> None:
    with ExitStack() as after:
        check = assert_no_leaks(SHORT)
        with pytest.raises(ZeroDivisionError), check:
            fail_after(thread, after)
    assert [leak.kind for leak in check.leaks] == [LeakKind.THREAD]


def test_processes_of_a_failed_test_can_be_ended() -> None:
    with ExitStack() as after:
        before = Snapshot.take()
        child(after)
        kill_new_processes(before)
        assert [leak for leak in compare(before) if leak.kind is LeakKind.PROCESS] == []
