"""The command line as a user meets it: another process, its output, its exit status."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from control_pool import (
    SNAKEPIT,
    asnakepit,
    held_call,
    make_old,
    snakepit,
    sockets_below,
    use_folder,
    watched_pool,
)
from processes import alive, send_signal, wait_until
from terminal import Terminal

from snakepit.cli.output import plain
from snakepit.cli.top import Watch
from snakepit.control.folder import bind_socket
from snakepit.processes.sweep import RunMark
from snakepit.supervision import monitor
from snakepit.worker.marks import RUN_VARIABLE

WORKER = "pool_worker:Worker"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_folder(tmp_path, monkeypatch)
    return tmp_path


def assert_failed(done: subprocess.CompletedProcess[str], status: int, pattern: str) -> None:
    assert (done.returncode, done.stdout) == (status, ""), done
    assert re.fullmatch(rf"snakepit: {pattern}\n", done.stderr), done.stderr


# --- help and usage ------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_statuses() -> None:
    done = snakepit("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for word in "doctor run top dump sweep 124 130".split():
        assert word in done.stdout


def test_it_is_a_module_too() -> None:
    command = [sys.executable, "-m", "snakepit", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"snakepit \d+\.\d+\.\d+\n", done.stdout)


def test_help_loads_nothing_of_a_pool() -> None:
    code = (
        "import sys\n"
        "from snakepit.cli.commands import run_command\n"
        "try: run_command(['--help'])\n"
        "except SystemExit: print('|', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.partition("|")[2].split()
    assert {"asyncio", "msgpack", "snakepit.errors", "tempfile"} & set(loaded) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["rnu"],
        ["run"],
        ["run", WORKER],
        ["top", "--onec"],
        ["sweep", "--dry"],
        ["dump", "a", "b"],
    ],
)
def test_wrong_usage_is_told_with_status_2(arguments: list[str]) -> None:
    done = snakepit(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: snakepit")
    assert "required: COMMAND, NAME" not in done.stderr  # these are not


# --- run -----------------------------------------------------------------------------------------


def test_run_prints_the_result_as_json() -> None:
    done = snakepit("run", WORKER, "add", "x=2", "y=3", "--config", "base=10")
    assert (done.returncode, done.stdout, done.stderr) == (0, "15\n", "")


def test_run_reads_values_as_json_or_else_as_text() -> None:
    done = snakepit("run", WORKER, "echo", 'value={"a": [1, null]}')
    assert json.loads(done.stdout) == {"a": [1, None]}
    assert snakepit("run", WORKER, "echo", "value=a=b c").stdout == '"a=b c"\n'


def test_run_prints_the_items_of_a_stream_line_by_line() -> None:
    assert snakepit("run", WORKER, "count", "n=3").stdout == "0\n1\n2\n"


def test_run_tells_what_came_before_a_stream_failed() -> None:
    done = snakepit("run", WORKER, "count", "n=3", "fail_at=2")
    assert (done.returncode, done.stdout) == (1, "0\n1\n")
    assert done.stderr == "snakepit: RemoteError: ValueError: at 2\n"


def test_run_has_no_traceback_unless_asked_for() -> None:
    done = snakepit("run", WORKER, "fail", "message=no")
    assert_failed(done, 1, r"RemoteError: ValueError: no: 'inner'")
    debugged = snakepit("run", WORKER, "fail", "message=no", "--debug")
    assert "pool_worker.py" in debugged.stderr
    assert debugged.stderr.endswith(done.stderr)


def test_run_shows_what_the_worker_prints_and_how_it_died() -> None:
    done = snakepit("run", WORKER, "die", f"number={int(signal.SIGKILL)}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "last words" in done.stderr.splitlines()[0]
    assert "snakepit: WorkerLost: worker run-1" in done.stderr
    assert "SIGKILL" in done.stderr


def test_run_stops_the_command_at_its_timeout(tmp_path: Path) -> None:
    done = snakepit("run", WORKER, "sleep", f"started={tmp_path / 'x'}", "--timeout", "0.2")
    assert_failed(done, 124, r"CallTimeout: 'sleep' reached its total limit of 0\.2 s .*")


@pytest.mark.parametrize(
    ("arguments", "status", "pattern"),
    [
        ([WORKER, "ad", "x=1"], 2, r"UnknownCommand: .*did you mean 'add'\?.*"),
        ([WORKER, "add", "x"], 2, r"ConfigurationError: 'x' is no argument; .*"),
        ([WORKER, "add", "x=1", "x=2"], 2, r"ConfigurationError: .*twice"),
        (["pool_worker", "add"], 2, r"(ConfigurationError: .*)"),
        (
            ["no_such_module:Worker", "add"],
            1,
            r"PoolStartFailed: (.|\n)*'no_such_module'.*sys.path",
        ),
        ([WORKER, "add", "z=1"], 1, r"RemoteError: TypeError: .*'z'"),
    ],
)
def test_run_tells_mistakes_in_plain_words(arguments: list[str], status: int, pattern: str) -> None:
    assert_failed(snakepit("run", *arguments), status, pattern)


def test_run_is_interrupted_by_ctrl_c_and_leaves_nothing(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = [SNAKEPIT, "run", WORKER, "sleep", f"started={started}"]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE) as running:
        wait_until(started.exists, "it runs")
        running.send_signal(signal.SIGINT)
        assert running.stderr is not None
        assert (running.stderr.read(), running.wait(20)) == (b"", 130)


def test_who_reads_no_more_gets_no_traceback() -> None:
    command = f"{SNAKEPIT} run {WORKER} count n=100000 | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "0\n", "")


def test_values_that_json_does_not_know() -> None:
    import numpy as np

    value = {1: (b"a", {2}), "x": np.arange(3), "path": Path("a/b"), "n": np.float32(0.5)}
    assert plain(value) == {"1": ["YQ==", [2]], "x": [0, 1, 2], "path": "a/b", "n": 0.5}


# --- doctor --------------------------------------------------------------------------------------


def test_doctor_finds_a_machine_that_works() -> None:
    done = snakepit("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    findings = {each["name"]: each for each in json.loads(done.stdout)}
    assert findings["worker"]["status"] == "ok"
    assert re.search(r"forked worker ready after \d+ ms", findings["worker"]["text"])
    assert findings["calls"]["status"] == findings["stacks"]["status"] == "ok"
    assert {each["status"] for each in findings.values()} <= {"ok", "warning"}


def test_doctor_says_what_does_not_work_and_the_remedy() -> None:
    def leave_few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))

    done = snakepit("doctor", preexec_fn=leave_few_descriptors)
    assert done.returncode == 1
    assert re.search(r"^warning  open files: 12, (.|\n)*-> raise the limit", done.stdout, re.M)
    assert re.search(r"^error    worker: can't be started (.|\n)*\n +->", done.stdout, re.M)


# --- sweep ---------------------------------------------------------------------------------------


@pytest.mark.alone
def test_sweep_says_what_it_would_do_and_does_it(folder: Path) -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    mark = RunMark.new()._replace(host_pid=ended.pid)
    environment = {**os.environ, RUN_VARIABLE: str(mark)}
    bind_socket().close()
    (left,) = sockets_below(folder)
    make_old(left)
    with subprocess.Popen(["/bin/sleep", "600"], env=environment) as orphan:
        wait_until(lambda: title_of(orphan.pid).startswith("/bin/sleep"), "it has started")
        done = snakepit("sweep", "--dry-run")
        assert done.returncode == 0
        assert (
            f"would kill process {orphan.pid} of host {ended.pid}: /bin/sleep 600\n" in done.stdout
        )
        assert f"would remove {left}\n" in done.stdout
        assert alive(orphan.pid)
        assert left.exists()
        swept = json.loads(snakepit("sweep", "--json").stdout)
        assert (swept["sockets"], swept["dry_run"]) == ([str(left)], False)
        # By us, or by the keeper of another host that has just started.
        assert orphan.wait(20) == -signal.SIGKILL
    assert not left.exists()


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


# --- top -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 50)])
async def test_top_fits_the_terminal_and_quits_on_q(folder: Path, columns: int, rows: int) -> None:
    async with watched_pool(size=2) as pool, held_call(pool):
        with Terminal([SNAKEPIT, "top"], columns=columns, rows=rows) as terminal:
            await asyncio.to_thread(terminal.read_until, lambda: len(terminal.frames()) >= 1)
            for frame in terminal.frames():
                assert len(frame) <= rows
                assert max(map(len, frame)) <= columns
            text = "\n".join(terminal.frames()[-1])
            for word in ("watched  process", "1 running", "watched-1", "wait_at_gate", " MB "):
                assert word in text
            assert ("RUNS" in text) == (columns == 200)
            terminal.press("xq")
            assert await asyncio.to_thread(terminal.wait) == 0
            assert terminal.text.endswith("\x1b[?25h\x1b[?1049l")
            assert terminal.settings == terminal.settings_before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
async def test_top_gives_the_terminal_back(folder: Path, number: int, status: int) -> None:
    async with watched_pool(inline=True):
        with Terminal([SNAKEPIT, "top"], columns=80, rows=24) as terminal:
            await asyncio.to_thread(terminal.read_until, lambda: len(terminal.frames()) >= 1)
            assert terminal.settings != terminal.settings_before
            terminal.process.send_signal(number)
            assert await asyncio.to_thread(terminal.wait) == status
            assert terminal.text.endswith("\x1b[?25h\x1b[?1049l")
            assert terminal.settings == terminal.settings_before


async def test_top_says_that_the_pool_does_not_answer_and_that_it_has_ended(folder: Path) -> None:
    async with watched_pool(inline=True) as pool:
        with Terminal([SNAKEPIT, "top"], columns=80, rows=24) as terminal:
            await asyncio.to_thread(terminal.read_until, lambda: len(terminal.frames()) >= 1)
            # In this thread, so that the pool's event loop is blocked.
            terminal.read_until(lambda: "NO ANSWER" in terminal.text)
            # More than one such frame may have been drawn before the loop is free again.
            await asyncio.to_thread(
                terminal.read_until, lambda: "NO ANSWER" not in terminal.frames()[-1][0]
            )
            await pool.aclose()
            assert await asyncio.to_thread(terminal.wait) == 0
            assert terminal.text.endswith("the pool has ended\r\n")


async def test_a_pool_that_ends_while_it_does_not_answer_has_ended(folder: Path) -> None:
    async with watched_pool(inline=True) as pool:
        (path,) = sockets_below(folder)
        with Watch(path) as watch:
            await asyncio.to_thread(watch.look)
            view = watch.look()  # in this thread, so that nobody answers
            assert "NO ANSWER" in view.notice
            await pool.aclose()
            with pytest.raises(ConnectionError, match="has ended"):
                await asyncio.to_thread(watch.look)


async def test_top_shows_the_pool_once_where_there_is_no_terminal(folder: Path) -> None:
    async with watched_pool(inline=True):
        done = await asnakepit("top")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("watched  process")
        assert "\x1b" not in done.stdout
        seen: dict[str, Any] = json.loads((await asnakepit("top", "--json")).stdout)
        assert seen["stats"]["size"] == 1


async def test_the_pool_is_chosen_by_process_or_name(folder: Path) -> None:
    async with watched_pool(inline=True, name="one"), watched_pool(inline=True, name="two"):
        pid = os.getpid()
        for which in ("two", f"{pid}:two"):
            assert (await asnakepit("top", which)).stdout.startswith("two ")
        several = (
            rf"ConfigurationError: there are several pools; say which one:(\n  {pid}:\w+){{2}}"
        )
        assert_failed(await asnakepit("top"), 2, several)
        assert_failed(await asnakepit("dump", str(pid)), 2, several)
        assert_failed(await asnakepit("top", "three"), 2, rf"(.|\n)*there are:(\n  {pid}:\w+){{2}}")


def test_without_a_pool_it_says_how_to_have_one(folder: Path) -> None:
    assert_failed(snakepit("top"), 2, r"ConfigurationError: .*SNAKEPIT_CONTROL=1 in the .*")


# --- dump ----------------------------------------------------------------------------------------


async def test_dump_prints_what_workers_do_and_goes_on_after_one_that_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "_STACKS_PATIENCE", 0.3)
    async with watched_pool(size=2) as pool, held_call(pool):
        await pool.await_ready(20)
        stopped = next(each for each in pool.workers() if not each.in_flight)
        busy = next(each for each in pool.workers() if each.in_flight)
        one = await asnakepit("dump", "--worker", busy.worker_id)
        assert one.returncode == 0
        assert one.stdout.startswith(f"worker {busy.worker_id} (pid {busy.pid})\n")
        assert "in wait_at_gate" in one.stdout
        send_signal(stopped, signal.SIGSTOP)
        try:
            both = await asnakepit("dump", "watched")
        finally:
            send_signal(stopped, signal.SIGCONT)
        assert both.returncode == 1
        assert "in wait_at_gate" in both.stdout
        assert f"WorkerHung: worker {stopped.worker_id} gave no stacks" in both.stderr
        assert_failed(await asnakepit("dump", "--worker", "x"), 2, r"ConfigurationError: .*'x'.*")
