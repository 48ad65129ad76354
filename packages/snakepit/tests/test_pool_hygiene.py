"""What must not cross from one call, or one process, to another."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import until

from snakepit import Pool, PythonAdapter
from snakepit.errors import WorkerLost

UNGUARDED = """
import asyncio
import snakepit

class Greeter:
    @snakepit.command
    def greet(self):
        return "hello"

async def main():
    async with snakepit.Pool(snakepit.PythonAdapter("unguarded:Greeter"), size=1) as pool:
        print(await pool.execute("greet"))

asyncio.run(main())
"""

LEFT_WAITING = """
import asyncio
import time
import snakepit

class Sleeper:
    @snakepit.command
    def sleep(self):
        time.sleep(60)

async def main():
    pool = snakepit.Pool(snakepit.PythonAdapter("left_waiting:Sleeper"), size=1)
    await pool.start()
    call = asyncio.create_task(pool.execute("sleep"))
    call.add_done_callback(lambda call: print("cancelled:", call.cancelled()))
    await asyncio.sleep(0)

if __name__ == "__main__":
    asyncio.run(main())
"""

NEVER_CLOSED = """
import asyncio
import gc
import os
import weakref
import snakepit

class Asker:
    @snakepit.command
    def ask(self):
        return snakepit.current_call().call_host("answer")

def new_pool(**options):
    return snakepit.Pool(snakepit.PythonAdapter("never_closed:Asker"), size=1, **options)

async def start(calls):
    entered = asyncio.Event()

    async def answer(call):
        entered.set()
        await asyncio.Event().wait()

    pool = new_pool(host_functions={"answer": answer})
    await pool.start()
    calls.append(asyncio.create_task(pool.execute("ask")))
    await entered.wait()
    return weakref.ref(pool)

def start_and_leave():
    loop, calls = asyncio.new_event_loop(), []
    try:
        return loop.run_until_complete(start(calls))
    finally:
        loop.close()

async def start_and_close():
    async with new_pool():
        pass

def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))

if __name__ == "__main__":
    before = descriptors()
    pool = start_and_leave()
    asyncio.run(start_and_close())  # ends what the first one has left
    left = descriptors() - before
    print(f"forgotten: {pool() is None}, descriptors left: {left}")
"""


async def test_the_last_output_of_a_death_is_that_of_its_own_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "snakepit")
    async with Pool(PythonAdapter("pool_worker:Talkative"), size=1) as pool:
        await pool.execute("say", {"text": "of another session"}, session_id="a")
        await until(lambda: "of another session" in caplog.text, "what it printed has come")
        await pool.execute("say", {"text": "still in the pipe"}, session_id="a")
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("die", {"text": "my own words"}, session_id="b")
    assert caught.value.last_output == "my own words"
    assert "still in the pipe" in caplog.text


async def test_nor_is_that_of_a_call_it_waited_behind() -> None:
    async with Pool(PythonAdapter("pool_worker:Talkative"), size=1) as pool:
        await pool.execute("say", {"text": "first"}, session_id="b")
        ended = await asyncio.gather(
            pool.execute("say", {"text": "of another session"}, session_id="a"),
            pool.execute("die", {"text": "my own words"}, session_id="b"),
            return_exceptions=True,
        )
    assert ended[0] is None
    assert isinstance(ended[1], WorkerLost)
    assert "of another session" not in ended[1].last_output


def run_script(script: Path, text: str) -> subprocess.CompletedProcess[str]:
    script.write_text(text)
    return subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(script.parent)},
        check=False,
    )


def test_a_pool_that_was_never_closed_is_forgotten_with_its_loop(tmp_path: Path) -> None:
    ended = run_script(tmp_path / "never_closed.py", NEVER_CLOSED)
    assert (ended.returncode, ended.stdout) == (0, "forgotten: True, descriptors left: 0\n")
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("start", ["template", "spawn"])
def test_a_script_that_starts_a_pool_when_it_is_imported_gets_an_error(
    tmp_path: Path, start: str
) -> None:
    text = UNGUARDED.replace('Greeter")', f'Greeter", start={start!r})')
    ended = run_script(tmp_path / "unguarded.py", text)
    assert ended.returncode == 1
    assert "if __name__ == '__main__'" in ended.stderr


def test_a_program_may_end_while_a_call_is_awaited(tmp_path: Path) -> None:
    ended = run_script(tmp_path / "left_waiting.py", LEFT_WAITING)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "cancelled: True\n", "")


async def test_workers_that_are_forked_together_have_no_descriptor_of_each_other() -> None:
    async with Pool(PythonAdapter("pool_worker:Worker"), size=12) as pool:
        await until(lambda: pool.stats().ready == 12, "all are ready")
        held = [sockets_and_pipes(info.pid) for info in pool.workers() if info.pid is not None]
        assert len(held) == 12
        assert all(held)
        assert sum(map(len, held)) == len(set().union(*held))


def sockets_and_pipes(pid: int) -> set[str]:
    """What its descriptors lead to, if another process can have the same."""
    links = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    return {link for link in links if link.startswith(("socket:", "pipe:"))}
