"""The faces of the platform where they are used: scripts, threads, notebooks, at exit."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

import dspex
from dspex.errors import ConfigurationError, ModelNotFound, PoolClosed
from snakepit import Health
from snakepit_grpc_bridge.testing import ScriptedModel

PARIS = ScriptedModel(matches={"": {"answer": "Paris"}})
ROME = ScriptedModel(matches={"": {"answer": "Rome"}})


@pytest.fixture
def default() -> Iterator[None]:
    yield
    dspex.close()


async def test_the_asynchronous_client_does_the_same() -> None:
    client = dspex.AsyncClient(model=PARIS, workers=1, import_allow=("dspy", "stack_programs"))

    @client.tool
    async def triple(number: int) -> int:
        return 3 * number

    async with client:
        assert await client.ask("?") == "Paris"
        assert await client.call("stack_programs", "use_tool", ["triple", {"number": 2}]) == 6
        async with client.temp_session() as session:
            await session.set_variable("x", 1)
            assert await session.list_variables() == {"x": 1}
            assert (await client.predict_with_session(session, "q -> answer", {"q": "?"})).answer
        with pytest.raises(ConfigurationError, match="after the client was opened"):
            client.tool(triple)
        with pytest.raises(ConfigurationError, match="timeout"):
            await client.ask("?", timeout=0)
    with pytest.raises(PoolClosed):
        await client.ask("?")


def test_both_clients_tell_their_health_closed_ones_too() -> None:
    behind = dspex.AsyncClient(model=PARIS, workers=1)
    assert (behind.health().live, behind.health().ready) == (True, False)  # not opened yet
    with dspex.Client(model=PARIS, workers=1) as client:
        assert client.health() == Health(live=True, ready=True)
    assert client.health() == Health(False, False, ("programs: the pool is closed",))


async def test_many_calls_of_one_client_run_side_by_side() -> None:
    async with dspex.AsyncClient(model=PARIS, workers=2) as client:
        answers = await asyncio.gather(*(client.ask(f"{n}?") for n in range(20)))
    assert answers == ["Paris"] * 20


async def test_the_synchronous_client_works_beside_a_running_loop() -> None:
    with dspex.Client(model=PARIS, workers=1) as client:
        assert client.ask("?") == "Paris"
        assert await asyncio.to_thread(client.ask, "?") == "Paris"


def test_a_client_serves_several_threads_and_plain_functions_as_tools() -> None:
    answers: list[str] = []
    with dspex.Client(model=PARIS, workers=2, import_allow=("dspy", "stack_programs")) as client:

        @client.tool
        def ask_again(question: str) -> str:
            # The host's own client, called by a worker: a call inside a call.
            return client.ask(question)

        threads = [
            threading.Thread(target=lambda: answers.append(client.ask("?"))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        arguments = ["ask_again", {"question": "?"}]
        answers.append(client.call("stack_programs", "use_tool", arguments))
    assert answers == ["Paris"] * 6
    with pytest.raises(PoolClosed):
        client.ask("?")


def test_a_call_inside_a_call_works_with_a_single_worker() -> None:
    with dspex.Client(model=PARIS, workers=1, import_allow=("dspy", "stack_programs")) as client:

        @client.tool
        def ask_again() -> str:
            return client.ask("?")

        assert client.call("stack_programs", "use_tool", ["ask_again", {}]) == "Paris"


def test_a_forgotten_client_ends_its_processes() -> None:
    client = dspex.Client(model=PARIS, workers=1, import_allow=("dspy", "stack_programs"))
    pid = client.call("stack_programs", "process_id")
    del client
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_settings_are_checked_when_they_are_given(default: None) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'workers'"):
        dspex.Client(worker=2)
    with pytest.raises(ConfigurationError, match="at least 1"):
        dspex.configure(workers=0)
    with pytest.raises(ModelNotFound, match="did you mean 'embedded'"):
        dspex.configure(model="embeded")
    with pytest.raises(ConfigurationError, match="not both"):
        dspex.Client(dspex.Settings(), workers=2)


def test_the_modules_functions_share_a_client_that_configure_replaces(default: None) -> None:
    dspex.configure(model=PARIS, workers=1)
    assert dspex.ask("?") == "Paris"
    dspex.set_variable("x", 1)
    first = dspex.default_client()
    dspex.configure(model=PARIS, workers=1)
    assert dspex.default_client() is first
    dspex.configure(model=ROME, workers=1)
    assert first.closed
    assert dspex.ask("?") == "Rome"
    assert dspex.get_variable("x", None) is None
    dspex.close()


SCRIPT = """
import sys, dspex
from snakepit_grpc_bridge.testing import ScriptedModel

model = ScriptedModel(matches={"": {"answer": "Paris"}})
dspex.configure(model=model, workers=1, import_allow=("dspy", "stack_programs"))
"""


def run(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT + script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def gone(pid: int, within: float = 1.0) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([process], [], [], within)
    os.close(process)
    return bool(ended)


def test_a_script_ends_by_itself_and_leaves_nothing() -> None:
    process = run("print(dspex.call('stack_programs', 'process_id'))")
    out, err = process.communicate(timeout=40)
    assert (process.returncode, err) == (0, "")
    assert gone(int(out))


CTRL_C = """
pid = dspex.call('stack_programs', 'process_id')

@dspex.tool
def ready(pid):
    print(pid, flush=True)

try:
    dspex.call('stack_programs', 'block', ['ready'])
except KeyboardInterrupt:
    print('interrupted', dspex.ask('?'), flush=True)
"""


def test_ctrl_c_ends_the_call_and_the_client_goes_on() -> None:
    process = run(CTRL_C)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=40)
    assert (out, process.returncode, err) == ("interrupted Paris\n", 0, "")
    assert gone(pid)


def test_nothing_survives_a_killed_host() -> None:
    process = run(CTRL_C)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.communicate(timeout=10)
    assert gone(pid)


def test_a_call_that_is_too_late_is_stopped() -> None:
    pids: list[int] = []
    with dspex.Client(model=PARIS, workers=1, import_allow=("dspy", "stack_programs")) as client:

        async def ready(pid: int) -> None:
            pids.append(pid)

        client.register_tool("ready", ready)
        client.call("stack_programs", "process_id")  # the worker has the module now
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            client.call("stack_programs", "block", ["ready"], timeout=0.5)
        assert time.monotonic() - started < 5
        assert client.ask("?") == "Paris"
    assert gone(pids[0])
