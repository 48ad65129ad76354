"""What a worker's death costs: the call that it had, and the instances that it held."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

import dspex
from dspex.errors import SessionLost, WorkerLost
from snakepit_grpc_bridge.testing import ScriptedModel

FRANCE = {"question": "What is the capital of France?"}


class Counting(dspex.Module, path="stack_programs.Counter", signature=None):
    pass


@pytest.fixture
def client() -> Iterator[dspex.Client]:
    with dspex.Client(
        model=ScriptedModel(matches={"": {"answer": "Paris"}}),
        workers=2,
        import_allow=("dspy", "stack_programs"),
        timeout=20,
    ) as opened:
        yield opened


def test_a_killed_worker_costs_its_call_alone(client: dspex.Client) -> None:
    began: list[int] = []
    ready = threading.Event()

    async def note(pid: int) -> None:
        began.append(pid)
        ready.set()

    client.register_tool("note", note)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            client.call("stack_programs", "block", ["note"])
        except WorkerLost as error:
            caught.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert ready.wait(20)
    os.kill(began[0], signal.SIGKILL)
    thread.join(20)
    (error,) = caught
    assert isinstance(error, WorkerLost)
    assert error.signal == "SIGKILL"
    assert client.ask(FRANCE["question"]) == "Paris"


def test_an_instance_goes_with_its_worker_and_says_so(client: dspex.Client) -> None:
    with client.start_session() as session:
        counter = Counting.create(session)
        pid = session.call("stack_programs", "process_id")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises((SessionLost, WorkerLost)):
            counter.execute()
        with pytest.raises(SessionLost, match="create the instance again"):
            counter.execute()
        assert Counting.create(session, start=1).execute()["result"] == 2
