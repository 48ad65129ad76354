"""Variables and sessions, in the host alone."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit_grpc_bridge.errors import (
    SessionNotFound,
    UnsupportedType,
    ValidationFailed,
    VariableExists,
    VariableNotFound,
)
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, SessionService
from snakepit_grpc_bridge.variables import VariableService, supported_types


async def _started() -> tuple[SessionService, VariableService]:
    sessions = SessionService()
    await sessions.start("s")
    return sessions, VariableService(sessions)


async def test_create_read_write_list_delete() -> None:
    _, variables = await _started()
    created = await variables.create("s", "temperature", "float", 1, constraints={"max": 2})
    assert (created.value, created.version, created.type) == (1.0, 0, "float")
    written = await variables.set("s", "temperature", 0.5)
    assert written.version == 1
    assert written.created_at == created.created_at <= written.updated_at
    assert await variables.get("s", "temperature") == 0.5
    await variables.put("s", "a", [1, 2])
    assert [variable.name for variable in await variables.list("s")] == ["a", "temperature"]
    assert await variables.delete("s", "a") is True
    assert await variables.delete("s", "a") is False
    assert await variables.exists("s", "a") is False


async def test_a_failed_write_changes_nothing() -> None:
    _, variables = await _started()
    await variables.create("s", "t", "float", 1.0, constraints={"min": 0, "max": 2})
    for value in (3, float("nan"), "hot", True):
        with pytest.raises(ValidationFailed):
            await variables.set("s", "t", value)
    assert (await variables.get_variable("s", "t")).version == 0


async def test_missing_and_existing_variables() -> None:
    _, variables = await _started()
    await variables.put("s", "temperature", 0.2)
    with pytest.raises(VariableNotFound) as caught:
        await variables.get("s", "temprature")
    assert caught.value.similar == ["temperature"]
    assert isinstance(caught.value, KeyError)
    with pytest.raises(VariableNotFound):
        await variables.set("s", "new", 1)
    assert await variables.get("s", "new", None) is None
    with pytest.raises(VariableExists):
        await variables.create("s", "temperature", "float", 1.0)
    replaced = await variables.create("s", "temperature", "string", "hot", overwrite=True)
    assert (replaced.type, replaced.version) == ("string", 0)


async def test_the_session_comes_before_the_global_scope() -> None:
    _, variables = await _started()
    await variables.put(GLOBAL_SESSION, "x", 1)
    await variables.put(GLOBAL_SESSION, "y", 1)
    assert await variables.get("s", "x") == 1
    await variables.put("s", "x", 2)
    assert await variables.get("s", "x") == 2
    assert await variables.get(GLOBAL_SESSION, "x") == 1
    with pytest.raises(VariableNotFound):
        await variables.set("s", "y", 2)  # never writes through to the global one
    visible = await variables.list("s", include_global=True)
    assert [(variable.name, variable.value) for variable in visible] == [("x", 2), ("y", 1)]


async def test_callers_share_nothing_with_the_store() -> None:
    _, variables = await _started()
    given = {"tags": ["a"]}
    await variables.put("s", "config", given)
    given["tags"].append("b")
    read = await variables.get("s", "config")
    read["tags"].append("c")
    (listed,) = await variables.list("s")
    listed.value["tags"].append("d")
    assert await variables.get("s", "config") == {"tags": ["a"]}


async def test_sessions_end_with_their_variables() -> None:
    sessions, variables = await _started()
    await variables.put("s", "x", 1)
    assert await sessions.close("s") is True
    assert await sessions.close("s") is False
    with pytest.raises(SessionNotFound):
        await variables.get("s", "x", None)
    await sessions.start("s")
    assert await variables.exists("s", "x") is False
    with pytest.raises(SessionNotFound):
        await variables.put("never", "x", 1)


async def test_the_global_session_is_emptied_not_closed() -> None:
    sessions, variables = await _started()
    await variables.put(GLOBAL_SESSION, "x", 1)
    await sessions.clear_global()
    assert await variables.exists("s", "x") is False
    assert await sessions.exists(GLOBAL_SESSION)


@pytest.mark.parametrize(
    ("type_name", "good", "bad", "constraints"),
    [
        ("string", "ab", "abc", {"max_length": 2}),
        ("string", "", b"", {}),
        ("integer", 10**30, 1.0, {}),
        ("integer", 0, False, {}),
        ("float", 1, "1", {}),
        ("float", 0.0, float("nan"), {"min": -1.0}),
        ("boolean", True, 1, {}),
        ("binary", bytearray(b"x"), "x", {}),
        ("list", (1, [2]), {1: 2}, {}),
        ("list", [], [object()], {}),
        ("map", {"a": {"b": 1}}, {1: 2}, {}),
        ("choice", "a", "c", {"choices": ["a", "b"]}),
        ("choice", 1, True, {"choices": [1, 2]}),
        ("embedding", [1, 2.5], [1.0], {"dimensions": 2}),
        ("embedding", [0.0], [float("inf")], {}),
    ],
)
async def test_types(type_name: str, good: Any, bad: Any, constraints: dict[str, Any]) -> None:
    _, variables = await _started()
    await variables.create("s", "good", type_name, good, constraints=constraints)
    with pytest.raises(ValidationFailed):
        await variables.create("s", "bad", type_name, bad, constraints=constraints)
    assert await variables.exists("s", "bad") is False
    assert type_name in supported_types()


async def test_inferred_types_widen_to_float_and_nothing_else() -> None:
    _, variables = await _started()
    await variables.put("s", "t", 1)
    assert (await variables.put("s", "t", 0.5)).type == "float"
    with pytest.raises(ValidationFailed):
        await variables.put("s", "t", "warm")
    await variables.create("s", "n", "integer", 1)
    with pytest.raises(ValidationFailed):
        await variables.put("s", "n", 0.5)
    with pytest.raises(UnsupportedType):
        await variables.put("s", "o", object())


async def test_declarations_are_checked() -> None:
    _, variables = await _started()
    with pytest.raises(UnsupportedType, match="did you mean 'integer'"):
        await variables.create("s", "x", "integr", 1)
    with pytest.raises(ValidationFailed, match="did you mean 'max'"):
        await variables.create("s", "x", "integer", 1, constraints={"maxi": 3})
    with pytest.raises(ValidationFailed, match="needs the constraint 'choices'"):
        await variables.create("s", "x", "choice", 1)
    with pytest.raises(ValidationFailed, match="no variable name"):
        await variables.put("s", "no name", 1)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValidationFailed, match="levels deep"):
        await variables.put("s", "loop", loop)


async def test_session_records_and_ids() -> None:
    sessions = SessionService()
    async with sessions.open(user="ada") as session:
        assert session.id.startswith("session_")
        assert (await sessions.get(session.id)).metadata == {"user": "ada"}
        assert [known.id for known in await sessions.list()] == [GLOBAL_SESSION, session.id]
        with pytest.raises(ValidationFailed, match="open already"):
            await sessions.start(session.id)
    assert await sessions.exists(session.id) is False
    for wrong in ("", " ", "a\nb", "x" * 300, 7):
        with pytest.raises(ValidationFailed, match="no session id"):
            await sessions.start(wrong)  # type: ignore[arg-type]


async def test_a_failing_close_hook_does_not_keep_the_others() -> None:
    sessions = SessionService()
    closed: list[str] = []

    async def broken(session_id: str) -> None:
        raise RuntimeError("disk on fire")

    async def working(session_id: str) -> None:
        closed.append(session_id)

    sessions.on_close(broken)
    sessions.on_close(working)
    await sessions.start("s")
    await sessions.close("s")
    assert closed == ["s"]
