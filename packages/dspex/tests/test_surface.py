"""The public names: that they are there, alike in both faces, and typed."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, assert_type

import pytest

import dspex
from dspex.default import DefaultClient
from dspex.errors import DuplicateTool, SnakepitError


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_every_public_name_is_there() -> None:
    for name in dspex.__all__:
        assert getattr(dspex, name) is not None
    assert set(dspex.__all__) <= set(dir(dspex))
    with pytest.raises(AttributeError, match="no attribute 'asks'"):
        dspex.asks  # type: ignore[attr-defined]  # noqa: B018


def test_the_modules_names_are_listed_on_purpose() -> None:
    assert set(dspex.__all__) - {"__version__"} == {
        *("Answer", "AsyncClient", "AsyncModuleHandle", "AsyncSession", "Client", "Module"),
        *("ModuleHandle", "ModuleInfo", "Prediction", "Session", "Settings", "errors"),
        *("answer_with_context", "ask", "classify", "extract_entities", "generate", "summarize"),
        *("call", "chain_of_thought", "predict", "predict_with_session"),
        *("delete_variable", "get_session_variable", "get_variable", "list_variables"),
        *("set_session_variable", "set_variable"),
        *("call_tool", "list_tools", "register_tool", "tool", "unregister_tool"),
        *("clear_global_session", "get_or_create_global_session", "is_temp_session"),
        *("generate_session_id", "generate_temp_session_id"),
        *("start_session", "stop_session", "temp_session"),
        *("close", "configure", "default_client"),
    }


def test_both_clients_have_the_same_methods() -> None:
    only_async = {"open", "start_temp_session"}
    only_sync = {"variables", "closed", "run"}
    assert public(dspex.AsyncClient) - only_async == public(dspex.Client) - only_sync - {"settings"}


def test_both_sessions_have_the_same_methods() -> None:
    only_sync = {"variables", "tool", "id", "run"}
    assert public(dspex.AsyncSession) == public(dspex.Session) - only_sync


@pytest.mark.parametrize("name", ["ask", "predict", "call_tool", "start_session"])
def test_a_module_function_shows_the_parameters_of_the_method(name: str) -> None:
    method = inspect.signature(getattr(dspex.AsyncClient, name))
    function = inspect.signature(getattr(dspex, name))
    assert list(function.parameters) == list(method.parameters)[1:]
    assert not inspect.iscoroutinefunction(getattr(dspex.Client, name))
    assert inspect.getdoc(getattr(dspex, name))


def test_session_ids() -> None:
    assert len(dspex.generate_session_id()) == len("session_") + 32
    temporary = dspex.generate_temp_session_id()
    assert len(temporary) == len("temp_session_") + 16
    assert dspex.is_temp_session(temporary)
    assert not dspex.is_temp_session(dspex.generate_session_id())


def test_every_error_of_the_layers_below_can_be_caught_by_its_name() -> None:
    found: set[type[SnakepitError]] = set()
    todo = [SnakepitError]
    while todo:
        current = todo.pop()
        todo += current.__subclasses__()
        # Classes without a code of their own are made when an error arrives from another process.
        if current.__module__.startswith(("snakepit.", "snakepit_grpc_bridge.")):
            found |= {current} if "code" in vars(current) else set()
    assert {getattr(dspex.errors, name) for name in dspex.errors.__all__} == found


def test_decorated_tools_wait_for_a_client() -> None:
    default = DefaultClient()

    @default.tool
    def stock(item: str) -> int:
        return len(item)

    assert stock("pear") == 4
    with pytest.raises(DuplicateTool, match="replace=True"):
        default.tool(stock)
    default.tool(replace=True)(stock)
    default.close()


if TYPE_CHECKING:

    def types(client: dspex.Client, session: dspex.Session) -> None:
        assert_type(dspex.ask("?", reasoning=True), dspex.Answer)
        assert_type(client.classify("x", ["a"]), str)
        assert_type(session.extract_entities("x"), dict[str, list[str]])
        assert_type(client.predict("a -> b", {"a": 1}, timeout=1.5), dspex.Prediction)
        assert_type(client.predict("a -> b", {"a": 1}).b, Any)
        assert_type(client.start_session(metadata={"user": "ada"}), dspex.Session)
        client.ask(1)  # type: ignore[arg-type]
        client.ask("?", reasonin=True)  # type: ignore[call-arg]
        dspex.summarize("x", 3)  # type: ignore[call-arg]

    async def async_types(client: dspex.AsyncClient) -> None:
        assert_type(await client.ask("?"), dspex.Answer)
