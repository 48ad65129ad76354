"""PythonAdapter's options that decide what a worker is born with."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snakepit import Pool, PythonAdapter
from snakepit.errors import ConfigurationError, EncodeError, PoolStartFailed, WorkerLost

WORKER = "adapter_options_worker:Worker"
PROGRAM = Path(__file__).with_name("adapter_options_worker.py")

pytestmark = pytest.mark.usefixtures("silent_on_stderr")


@pytest.mark.parametrize("start", ["template", "spawn"])
def test_workers_may_write_to_the_streams_of_their_host(start: str) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, start], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "to stdout\nfrom a child\n"
    assert done.stderr == "to stderr\n"


@pytest.mark.parametrize("start", ["template", "spawn"])
def test_a_stream_that_the_host_has_closed_is_not_shared(start: str) -> None:
    script = f"exec {sys.executable} {PROGRAM} {start} >&-"
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, timeout=50, check=True
    )
    assert (done.stdout, done.stderr) == ("", "to stderr\n")


async def test_where_a_worker_crashed_is_told_though_it_writes_to_the_host(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "snakepit.output")
    async with Pool(PythonAdapter(WORKER, output="inherit"), size=1) as pool:
        with pytest.raises(WorkerLost) as caught:
            await pool.execute("crash")
        assert "in crash" in caught.value.last_output
        assert "last words" not in caught.value.last_output + caplog.text
    assert capfd.readouterr().out == "last words\n"


async def test_warm_gets_its_arguments() -> None:
    given: dict[str, Any] = {"names": ("a", "b"), "data": b"\x00\xff"}
    async with Pool(PythonAdapter(WORKER, warm_config=given), size=1) as pool:
        assert await pool.execute("warmed_with") == given
        # In one loop templates are shared; not by those who were warmed up in another way.
        async with Pool(PythonAdapter(WORKER), size=1) as other:
            assert await other.execute("warmed_with") == {}
        async with Pool(PythonAdapter(WORKER, start="spawn"), size=1) as spawned:
            assert await spawned.execute("warmed_with") is None


def test_wrong_options_are_named() -> None:
    with pytest.raises(EncodeError, match=r"warm_config\.bad") as caught:
        PythonAdapter(WORKER, warm_config={"bad": object()})
    assert caught.value.path == "warm_config.bad"
    wrong: Any = "terminal"
    with pytest.raises(ConfigurationError, match=r"output is 'terminal'.*'log' or 'inherit'"):
        PythonAdapter(WORKER, output=wrong)
    with pytest.raises(ConfigurationError, match=r"the name of its file: 'main:Sorter'"):
        PythonAdapter("__main__:Sorter")
    with pytest.raises(ConfigurationError, match=r"start is 'terminal'.*'template' or 'spawn'"):
        PythonAdapter(WORKER, start=wrong)


@pytest.mark.parametrize("start", ["template", "spawn"])
async def test_another_interpreter_that_lacks_the_module_says_where_it_looks(
    start: Any,
) -> None:
    elsewhere = [path for path in sys.path if path != str(Path(__file__).parent)]
    env = {"PYTHONPATH": os.pathsep.join(elsewhere)}
    adapter = PythonAdapter("pool_worker:Worker", start=start, python=sys.executable, env=env)
    with pytest.raises(PoolStartFailed, match=r"'pool_worker'.* its own sys\.path.*PYTHONPATH"):
        await Pool(adapter, size=1).start()
