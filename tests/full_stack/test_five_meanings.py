"""What a first program does with all three layers: predict, share variables, use tools, declare a
program class, stay with one worker. Real workers, real DSPy; the model answers from a script."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

import dspex
from dspex.errors import (
    DuplicateTool,
    HandleClosed,
    InputMismatch,
    InvalidCategory,
    NotAllowed,
    OutputFieldMissing,
    SessionNotFound,
    SignatureInvalid,
    ToolExecutionFailed,
    ToolNotFound,
    VariableNotFound,
)
from snakepit_grpc_bridge.testing import ScriptedModel

MODEL = ScriptedModel(
    matches={
        "capital": {"reasoning": "France's capital is well known.", "answer": "Paris"},
        "Lovely": {"category": "good"},
        "Dreadful": {"category": "none of these"},
        "Ada": {"people": ["Ada Lovelace", "Alan Turing"], "organizations": [], "locations": []},
        "Shorten": {"summary": "Short. And some more."},
    }
)
FRANCE = {"question": "What is the capital of France?"}


@pytest.fixture(scope="module")
def client() -> Iterator[dspex.Client]:
    with dspex.Client(
        model=MODEL, workers=2, import_allow=("dspy", "stack_programs"), timeout=20
    ) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_globals_are_left(client: dspex.Client) -> Iterator[None]:
    yield
    client.clear_global_session()


class QA(
    dspex.Module,
    path="dspy.Predict",
    signature="question -> answer",
    methods={"dump_state": "state"},
    enhanced_mode=True,
):
    """Answers questions."""


class Counting(
    dspex.Module, path="stack_programs.Counter", signature=None, methods={"reset": "clear"}
):
    pass


# --- prediction ----------------------------------------------------------------------------------


def test_a_prediction_goes_through_all_layers(client: dspex.Client) -> None:
    result = client.predict("question -> answer", FRANCE)
    assert result.answer == result["answer"] == "Paris"
    assert dict(result) == {"answer": "Paris"}


def test_a_chain_of_thought_has_its_reasoning(client: dspex.Client) -> None:
    result = client.chain_of_thought("question -> answer", FRANCE)
    assert (result.answer, result.reasoning) == ("Paris", "France's capital is well known.")


def test_the_patterns_have_typed_results(client: dspex.Client) -> None:
    answer = client.ask(FRANCE["question"], reasoning=True)
    assert (answer, answer.reasoning) == ("Paris", "France's capital is well known.")
    assert client.classify("Lovely!", ["good", "bad"]) == "good"
    assert client.summarize("Shorten this", max_length=2) == "Short."
    assert client.extract_entities("Ada Lovelace wrote it.") == {
        "people": ["Ada Lovelace"],
        "organizations": [],
        "locations": [],
    }


def test_a_category_outside_the_list_is_never_returned(client: dspex.Client) -> None:
    with pytest.raises(InvalidCategory, match="none of the categories") as caught:
        client.classify("Dreadful!", ["good", "bad"])
    assert isinstance(caught.value.__cause__, OutputFieldMissing)


@pytest.mark.parametrize("signature", ["question ->", "-> answer", "question", "", "a -> b: nope"])
def test_a_wrong_signature_fails_at_the_call(client: dspex.Client, signature: str) -> None:
    with pytest.raises(SignatureInvalid):
        client.predict(signature, {"question": "x"})


def test_wrong_inputs_fail_at_the_call(client: dspex.Client) -> None:
    with pytest.raises(InputMismatch, match=r"missing: question; not in the signature: query"):
        client.predict("question -> answer", {"query": "x"})


def test_temporary_sessions_are_really_closed(client: dspex.Client) -> None:
    client.ask(FRANCE["question"])
    with client.temp_session() as session:
        assert dspex.is_temp_session(session.id)
        session.ask(FRANCE["question"])
    with pytest.raises(SessionNotFound):
        session.ask(FRANCE["question"])
    assert client.stop_session(session) is False


# --- variables -----------------------------------------------------------------------------------


def test_a_variable_is_set_and_read(client: dspex.Client) -> None:
    client.set_variable("temperature", 0.7)
    assert client.get_variable("temperature") == 0.7
    client.set_variable("temperature", 0.2)
    assert client.get_variable("temperature") == 0.2
    assert client.get_variable("unknown", None) is None
    with pytest.raises(VariableNotFound, match="temprature"):
        client.get_variable("temprature")


def test_a_sessions_variable_hides_the_global_one_also_in_the_worker(client: dspex.Client) -> None:
    client.set_variable("tone", "dry")
    with client.start_session() as session:
        assert session.call("stack_programs", "read_variable", ["tone"]) == "dry"
        session.variables["tone"] = "warm"
        assert session.call("stack_programs", "read_variable", ["tone"]) == "warm"
        assert client.get_variable("tone") == "dry"
        session.call("stack_programs", "write_variable", ["tone", "wry"])
        assert dict(session.variables) == {"tone": "wry"}
        assert client.get_session_variable(session, "tone") == "wry"
        del session.variables["tone"]
        assert session.variables["tone"] == "dry"
        with pytest.raises(KeyError, match="of its own"):
            del session.variables["tone"]


def test_a_session_ends_with_its_variables(client: dspex.Client) -> None:
    session = client.start_session(metadata={"user": "ada"})
    client.set_session_variable(session.id, "x", 1)
    session.close()
    session.close()
    with pytest.raises(SessionNotFound):
        client.get_session_variable(session, "x")


def test_the_global_session_is_one_for_all(client: dspex.Client) -> None:
    session_id = client.get_or_create_global_session()
    client.set_variable("x", 1)
    assert client.get_session_variable(session_id, "x") == 1
    client.clear_global_session()
    assert client.get_or_create_global_session() == session_id
    assert client.get_variable("x", None) is None


# --- tools ---------------------------------------------------------------------------------------


async def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


def test_a_tool_is_registered_and_called_from_both_sides(client: dspex.Client) -> None:
    client.register_tool("double", double)
    assert client.call_tool("double", {"number": 4}) == 8
    assert client.call("stack_programs", "use_tool", ["double", {"number": 21}]) == 42
    assert client.list_tools() == ["double"]
    with pytest.raises(DuplicateTool):
        client.register_tool("double", double)
    assert client.unregister_tool("double") is True
    with pytest.raises(ToolNotFound):
        client.call_tool("double", {"number": 4})


def test_the_decorator_leaves_the_function_as_it_is(client: dspex.Client) -> None:
    @client.tool
    async def plus_one(number: int) -> int:
        return number + 1

    @client.tool(name="minus.one", description="One less.")
    async def minus_one(number: int) -> int:
        return number - 1

    assert client.list_tools() == ["minus.one", "plus_one"]
    assert asyncio.run(plus_one(1)) == 2


def test_a_tools_error_keeps_its_cause(client: dspex.Client) -> None:
    @client.tool
    async def fail() -> None:
        raise RuntimeError("out of stock")

    with pytest.raises(ToolExecutionFailed, match="out of stock") as caught:
        client.call_tool("fail")
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(ToolExecutionFailed, match="out of stock"):
        client.call("stack_programs", "use_tool", ["fail", {}])


def test_a_sessions_tool_is_its_own(client: dspex.Client) -> None:
    with client.start_session() as session:
        session.register_tool("double", double)
        assert session.call("stack_programs", "use_tool", ["double", {"number": 3}]) == 6
        with pytest.raises(ToolNotFound):
            client.call_tool("double", {"number": 3})


# --- program classes -----------------------------------------------------------------------------


def test_a_program_class_works(client: dspex.Client) -> None:
    with QA.create(client) as qa:
        assert qa.execute(question=FRANCE["question"]).answer == "Paris"
        assert qa.chain_of_thought(**FRANCE).reasoning
        assert qa.state()["signature"]
        with pytest.raises(InputMismatch):
            qa.execute(query="x")
        assert dspex.is_temp_session(qa.session_id)
    with pytest.raises(SessionNotFound):
        client.get_session_variable(qa.session_id, "x", None)
    assert QA.call(client, **FRANCE).answer == "Paris"
    assert QA.info().description == "Answers questions."


def test_an_instance_keeps_its_state_in_its_session(client: dspex.Client) -> None:
    with client.start_session() as session, Counting.create(session, start=5) as counter:
        assert counter.execute(by=2)["result"] == 7
        assert counter.call("__call__") == 8
        assert session.call(f"stored.{counter.instance_id}", "__call__") == 9
        assert counter.clear() == 0
        with pytest.raises(AttributeError, match=r"no 'shrink' .*declared: clear"):
            counter.shrink()
        with pytest.raises(AttributeError, match="enhanced_mode"):
            counter.chain_of_thought()
    with client.start_session() as session:
        counter = Counting.create(session)
        counter.close()
        counter.close()
        session.ask(FRANCE["question"])


@pytest.mark.parametrize("with_session", [False, True])
def test_a_closed_handle_says_so(client: dspex.Client, with_session: bool) -> None:
    with client.start_session() as session:
        qa = QA.create(session if with_session else client)
        qa.close()
        for use in (qa.execute, qa.state, qa.chain_of_thought):
            with pytest.raises(HandleClosed, match=r"this handle of QA is closed"):
                use(**FRANCE)
        qa.close()


def test_a_class_outside_the_allow_list_is_refused(client: dspex.Client) -> None:
    class Forbidden(dspex.Module, path="subprocess.Popen", signature=None):
        pass

    with pytest.raises(NotAllowed, match="import_allow"):
        Forbidden.create(client)
    with pytest.raises(NotAllowed, match="import_allow"):
        client.call("os", "getcwd")


# --- affinity ------------------------------------------------------------------------------------


def test_a_session_stays_with_its_worker(client: dspex.Client) -> None:
    with client.start_session() as one, client.start_session() as other:
        first = {one.call("stack_programs", "process_id") for _ in range(5)}
        second = {other.call("stack_programs", "process_id") for _ in range(5)}
    assert len(first) == len(second) == 1
    assert os.getpid() not in first | second
