"""Variables in the host alone: creating, reading, writing, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from state_services import running_state
from variable_values import same

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import (
    QuotaExceeded,
    ReadOnlyVariable,
    SessionNotFound,
    UnsupportedType,
    ValidationFailed,
    VariableConflict,
    VariableExists,
    VariableNotFound,
)
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, Quotas
from snakepit_grpc_bridge.variables import writing
from snakepit_grpc_bridge.variables.types import DatasetHandle, ModelHandle


async def test_create_read_write_list_delete(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        created = await variables.create("s", "temperature", "float", 1, constraints={"max": 2})
        assert (created.value, created.version, created.type) == (1.0, 0, "float")
        state.clock.now += 1
        written = await variables.set("s", "temperature", 0.5)
        assert written.version == 1
        assert written.created_at == created.created_at < written.updated_at
        assert written.updated_by is None
        assert await variables.get("s", "temperature") == 0.5
        await variables.put("s", "a", [1, 2])
        assert [variable.name for variable in await variables.list("s")] == ["a", "temperature"]
        assert await variables.delete("s", "a") is True
        assert await variables.delete("s", "a") is False
        assert await variables.exists("s", "a") is False


async def test_values_come_back_as_they_were_from_every_storage(storage_url: str) -> None:
    values: dict[str, Any] = {
        "text": "zwölf", "whole": 10**5000, "number": -0.0, "yes": True, "bytes": b"\0\xff",
        "map": {"a": [1, {"b": None}]}, "empty": [], "nan": float("nan"), "nothing": None,
        "any": {"a": [{1, 2}, Decimal("1.10")]},
        "moment": datetime(2024, 2, 29, 12, 0, 0, 7, timezone(timedelta(hours=-3))),
        "model": ModelHandle("file:///m.gguf", {"size": [3]}), "dataset": DatasetHandle("s3://b/d"),
    }  # fmt: skip
    declared: list[tuple[str, Any, dict[str, Any]]] = [
        ("choice", 2, {"choices": ["a", 2]}), ("module", "dspy.Predict", {}),
        ("embedding", (0.1, -0.0), {}), ("integer", None, {"nullable": True}),
    ]  # fmt: skip
    arrays = {
        "grid": np.asfortranarray(np.arange(12, dtype=">i4").reshape(3, 4)),
        "every-other": np.arange(10.0)[::2],
        "none": np.empty((0, 3), np.float16),
        "one": np.array(2 + 3j),
    }
    async with running_state(storage_url) as state:
        for name, value in (values | arrays).items():
            await state.variables.put("s", name, value)
        assert same(await state.variables.get_many("s", values), values)
        for type_name, value, constraints in declared:
            await state.variables.create("s", type_name, type_name, value, constraints=constraints)
            assert same(await state.variables.get("s", type_name), value)
        for name, array in arrays.items():
            read = await state.variables.get("s", name)
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            assert read.tobytes("A") == array.tobytes("A")
            assert read.flags.f_contiguous == array.flags.f_contiguous or name == "every-other"
            assert not read.flags.writeable


async def test_the_types_that_have_a_method_of_their_own() -> None:
    async with running_state() as state:
        variables = state.variables
        made = [
            await variables.create_tensor("s", "t", np.ones((2, 2)), constraints={"shape": [2, 2]}),
            await variables.create_embedding("s", "e", [1, 2], constraints={"dimensions": 2}),
            await variables.create_model("s", "m", ModelHandle("file:///m.gguf")),
            await variables.create_dataset("s", "d", DatasetHandle("file:///d.csv")),
        ]
        assert [variable.type for variable in made] == ["tensor", "embedding", "model", "dataset"]
        with pytest.raises(ValidationFailed):
            await variables.set("s", "e", [1, 2, 3])


async def test_a_failed_write_changes_nothing(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        before = await variables.create(
            "s", "t", "float", 1.0, constraints={"min": 0, "max": 2}, metadata={"unit": "K"}
        )
        for value in (3, float("nan"), "hot", True):
            with pytest.raises(ValidationFailed):
                await variables.set("s", "t", value, metadata={"unit": "C"})
            with pytest.raises(ValidationFailed):
                await variables.put("s", "t", value)
            with pytest.raises(ValidationFailed):
                await variables.update_many("s", {"other": 1, "t": value})
        with pytest.raises(ZeroDivisionError):
            await variables.update("s", "t", lambda value: value / 0)
        assert await variables.list("s") == [before]
        assert await variables.history("s", "t") == []


async def test_missing_and_existing_variables() -> None:
    async with running_state() as state:
        variables = state.variables
        await variables.put("s", "temperature", 0.2)
        with pytest.raises(VariableNotFound) as caught:
            await variables.get("s", "temprature")
        assert caught.value.similar == ["temperature"]
        assert isinstance(caught.value, KeyError)
        for missing in (
            variables.set("s", "new", 1),
            variables.update("s", "new", abs),
            variables.get_variable("s", "new"),
            variables.rollback("s", "new", 0),
        ):
            with pytest.raises(VariableNotFound, match="'new'"):
                await missing
        assert await variables.get("s", "new", None) is None
        with pytest.raises(VariableExists):
            await variables.create("s", "temperature", "float", 1.0)
        replaced = await variables.create("s", "temperature", "string", "hot", overwrite=True)
        assert (replaced.type, replaced.version) == ("string", 1)


async def test_the_session_comes_before_the_global_scope() -> None:
    async with running_state() as state:
        variables = state.variables
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


async def test_explaining_where_a_value_comes_from() -> None:
    async with running_state() as state:
        variables = state.variables
        await variables.put(GLOBAL_SESSION, "t", 0.7)
        assert (await variables.explain("s", "t")).scope == "global"
        await variables.put("s", "t", 0.2)
        found = await variables.explain("s", "t")
        assert (found.scope, found.value, found.hidden) == ("session", 0.2, {"global": 0.7})
        found = await variables.explain("s", "t", call={"t": 0.0})
        assert (found.scope, found.value) == ("call", 0.0)
        assert found.hidden == {"session": 0.2, "global": 0.7}
        assert (await variables.explain(GLOBAL_SESSION, "t")).hidden == {}
        assert (await variables.explain("s", "never")).reason == "nobody has set 'never'"


async def test_callers_share_nothing_with_the_store() -> None:
    async with running_state() as state:
        variables = state.variables
        given = {"tags": ["a"]}
        await variables.put("s", "config", given)
        array = np.zeros(3)
        await variables.put("s", "array", array)
        given["tags"].append("b")
        array[0] = 1
        read = await variables.get("s", "config")
        read["tags"].append("c")
        listed = await variables.get_variable("s", "config")
        listed.value["tags"].append("d")
        await variables.update("s", "config", lambda value: value["tags"].append("e") or value)
        assert await variables.get("s", "config") == {"tags": ["a", "e"]}
        assert await variables.get("s", "array") @ [1, 1, 1] == 0


async def test_listing_by_type_and_name() -> None:
    async with running_state() as state:
        for name, value in {"ml_a": 1, "ml_b": "x", "c": 2}.items():
            await state.variables.put("s", name, value)

        async def names(**options: Any) -> list[str]:
            return [found.name for found in await state.variables.list("s", **options)]

        assert await names(pattern="ml_*") == ["ml_a", "ml_b"]
        assert await names(type="integer") == ["c", "ml_a"]
        assert await names(type="integer", pattern="ml_*") == ["ml_a"]


async def test_many_at_a_time(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await variables.create("s", "t", "float", 1.0, constraints={"max": 2})
        written = await variables.update_many("s", {"t": 1.5, "n": 1, "o": "x"})
        versions = [(name, getattr(one, "version", None)) for name, one in written.items()]
        assert versions == [("t", 1), ("n", 0), ("o", 0)]
        with pytest.raises(ValidationFailed):
            await variables.update_many("s", {"n": 2, "t": 9})
        assert await variables.get_many("s", ["n", "t", "none"]) == {"n": 1, "t": 1.5}
        assert await variables.get_many("s", ["n", "none"], 0) == {"n": 1, "none": 0}
        parts = await variables.update_many("s", {"n": 2, "t": 9, "no name": 1}, atomic=False)
        assert {name: type(one).__name__ for name, one in parts.items()} == {
            "n": "Variable", "t": "ValidationFailed", "no name": "ValidationFailed",
        }  # fmt: skip
        assert await variables.get("s", "n") == 2
        with pytest.raises(SessionNotFound):
            await variables.update_many("never", {"n": 2}, atomic=False)


async def test_inferred_types_widen_to_float_and_nothing_else() -> None:
    async with running_state() as state:
        variables = state.variables
        await variables.put("s", "t", 1)
        assert (await variables.put("s", "t", 0.5)).type == "float"
        with pytest.raises(ValidationFailed, match="delete it to give it another"):
            await variables.put("s", "t", "warm")
        await variables.create("s", "n", "integer", 1)
        with pytest.raises(ValidationFailed) as declared:
            await variables.put("s", "n", 0.5)
        assert "delete it" not in str(declared.value)
        with pytest.raises(UnsupportedType):
            await variables.put("s", "o", object())
        assert await variables.exists("s", "o") is False


@pytest.mark.parametrize(
    ("type_name", "value", "constraints", "message"),
    [
        ("integr", 1, {}, "did you mean 'integer'"),
        ("integer", 1, {"maxi": 3}, "did you mean 'max'"),
        ("choice", 1, {}, "needs the constraint 'choices'"),
        pytest.param("integer", 10**5000, {"max": 5}, "at most 5", id="5000-digits"),
        ("float", float("nan"), {"min": 0.0}, "nan is not allowed"),
        ("string", "\ud800", {}, "surrogate"),
        ("tensor", np.array([object()]), {}, "object"),
    ],
)
async def test_bad_declarations_and_values(
    type_name: str, value: Any, constraints: dict[str, Any], message: str
) -> None:
    async with running_state() as state:
        with pytest.raises((ValidationFailed, UnsupportedType), match=message):
            await state.variables.create("s", "x", type_name, value, constraints=constraints)
        assert await state.variables.list("s") == []


async def test_bad_names_metadata_and_times() -> None:
    async with running_state() as state:
        variables = state.variables
        for name in ("no name", "", "-x", "a\0", "x" * 1000, "\ud800", "é\u202e"):
            with pytest.raises(ValidationFailed, match="no variable name"):
                await variables.put("s", name, 1)
        for ttl in (0, -1, float("nan"), float("inf"), 1e12, "soon"):
            with pytest.raises(ConfigurationError, match="ttl"):
                await variables.create("s", "x", "integer", 1, ttl=ttl)  # type: ignore[arg-type]
        with pytest.raises(ValidationFailed):
            await variables.create("s", "x", "integer", 1, metadata={"unit": object()})
        wrong: Any
        for wrong in (5, None, [], "x" * 1_000_000):
            with pytest.raises(ValidationFailed) as caught:
                await variables.get("s", wrong)
            assert len(str(caught.value)) < 1000
        for limit in (0, -1, "all", True):
            with pytest.raises(ConfigurationError, match="limit"):
                await variables.history("s", "x", limit=limit)  # type: ignore[arg-type]
        assert await variables.list("s") == []


# --- versions, history, time and rights -----------------------------------------------------------


async def test_compare_and_set(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await variables.put("s", "n", 1, expected_version=None)
        with pytest.raises(VariableConflict, match="in version 0, not not there") as caught:
            await variables.put("s", "n", 1, expected_version=None)
        assert (caught.value.details["expected"], caught.value.details["actual"]) == (None, 0)
        assert caught.value.retryable
        await variables.set("s", "n", 2, expected_version=0)
        for write in (variables.set, variables.put):
            with pytest.raises(VariableConflict):
                await write("s", "n", 3, expected_version=0)
        with pytest.raises(VariableConflict):
            await variables.delete("s", "n", expected_version=0)
        with pytest.raises(VariableConflict):
            await variables.put("s", "other", 3, expected_version=4)
        assert await variables.delete("s", "n", expected_version=1)
        # What comes after a deletion is never taken for what was before it.
        assert (await variables.put("s", "n", 1)).version == 3
        with pytest.raises(VariableConflict):
            await variables.set("s", "n", 3, expected_version=1)


async def test_history_and_rollback(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await variables.create("s", "n", "integer", 1, constraints={"max": 9})
        await variables.put("s", "n", 2, by="worker-1")
        await variables.put("s", "n", 3)
        earlier = await variables.history("s", "n")
        assert [(one.version, one.value, one.updated_by) for one in earlier] == [
            (1, 2, "worker-1"), (0, 1, None),
        ]  # fmt: skip
        back = await variables.rollback("s", "n", 0)
        assert (back.version, back.value) == (3, 1)
        with pytest.raises(ValidationFailed, match="no value of version 9"):
            await variables.rollback("s", "n", 9)
        await variables.delete("s", "n")
        await variables.create("s", "n", "integer", 5, constraints={"max": 6})
        newest = (await variables.history("s", "n", limit=1))[0]
        assert (newest.version, newest.deleted, newest.value) == (4, True, None)
        with pytest.raises(ValidationFailed, match="no value of version 4"):
            await variables.rollback("s", "n", 4)
        assert (await variables.rollback("s", "n", 2)).value == 3
        await variables.create("s", "n", "integer", 1, constraints={"max": 1}, overwrite=True)
        with pytest.raises(ValidationFailed):  # today's constraints count
            await variables.rollback("s", "n", 2)


async def test_the_history_of_a_type_that_needs_a_constraint() -> None:
    async with running_state() as state:
        variables, choices = state.variables, {"choices": ["a", "b"]}
        await variables.create("s", "c", "choice", "a", constraints=choices)
        await variables.set("s", "c", "b")
        assert [version.value for version in await variables.history("s", "c")] == ["a"]
        assert (await variables.rollback("s", "c", 0)).value == "a"


async def test_of_the_history_so_much_is_kept() -> None:
    async with running_state() as state:
        variables = state.variables
        for number in range(120):
            await variables.put("s", "n", number)
        kept = await variables.history("s", "n")
        assert [one.version for one in kept] == list(range(118, 18, -1))
        await variables.put("s", "text", "x" * (1 << 17))
        await variables.put("s", "text", "y")
        (large,) = await variables.history("s", "text")
        assert (large.kept, large.value) == (False, None)
        with pytest.raises(ValidationFailed, match="no value of version 0"):
            await variables.rollback("s", "text", 0)


async def test_creating_and_deleting_over_and_over_leaves_no_more_than_that() -> None:
    async with running_state() as state:
        for number in range(120):
            await state.variables.put("s", "n", number)
            await state.variables.delete("s", "n")
        assert (await state.variables.put("s", "n", 0)).version == 240
        kept = await state.variables.history("s", "n", limit=1000)
        assert [one.version for one in kept] == list(range(239, 139, -1))


DAY = 86_400.0


@pytest.mark.parametrize("batch", [2, 200])
async def test_the_history_of_what_was_deleted_is_forgotten(
    storage_url: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_BATCH", batch)
    async with running_state(storage_url) as state:
        variables, clock, place = state.variables, state.clock, GLOBAL_SESSION
        await variables.create(place, "code", "string", "1234", ttl=1)
        for name in ("gone", "anew", "kept", "later"):
            for number in range(3):
                await variables.put(place, name, number)
        await variables.delete(place, "gone")
        clock.now += 2
        await state.sessions.sweep()  # deletes the code, too
        for _ in range(2):
            await variables.delete(place, "anew")
            await variables.put(place, "anew", 3)
        await variables.put(place, "anew", 4)
        clock.now += 20 * DAY
        await variables.delete(place, "later")

        async def left() -> dict[str, list[int]]:
            await state.sessions.sweep()
            return {
                name: [one.version for one in await variables.history(place, name)]
                for name in ("gone", "code", "anew", "kept", "later")
            }

        clock.now += 10 * DAY - 2.5
        every = {
            "gone": [3, 2, 1, 0],
            "code": [1, 0],
            "anew": [6, 5, 4, 3, 2, 1, 0],
            "kept": [1, 0],
            "later": [3, 2, 1, 0],
        }
        assert await left() == every
        clock.now += 1
        assert await left() == every | {"gone": []}
        clock.now += 2
        assert await left() == every | {"gone": [], "code": [], "anew": [6]}
        assert (await variables.get_variable(place, "anew")).version == 7
        assert (await variables.put(place, "gone", 0)).version == 0
        clock.now += 30 * DAY
        assert await left() == {"gone": [], "code": [], "anew": [6], "kept": [1, 0], "later": []}


async def test_a_variable_whose_time_is_over_is_gone(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables, clock = state.variables, state.clock
        made = await variables.create("s", "code", "string", "1234", ttl=timedelta(seconds=60))
        assert made.expires is not None
        assert made.expires.timestamp() == clock.now + 60
        clock.now += 50
        await variables.set("s", "code", "5678")  # a write lets it live on
        clock.now += 59
        assert await variables.get("s", "code") == "5678"
        clock.now += 1
        assert await variables.get("s", "code", None) is None
        assert await variables.exists("s", "code") is False
        assert await variables.list("s") == []
        with pytest.raises(VariableNotFound):
            await variables.set("s", "code", "0")
        assert (await variables.put("s", "code", "9")).version == 2
        await variables.create("s", "code", "string", "1", ttl=1, overwrite=True)
        clock.now += 2
        await state.sessions.sweep()
        assert (await variables.history("s", "code", limit=1))[0].deleted


async def test_read_only_variables() -> None:
    async with running_state() as state:
        variables = state.variables
        await variables.create("s", "pi", "float", 3.14, read_only=True)
        for write in (
            variables.set("s", "pi", 3),
            variables.put("s", "pi", 3),
            variables.update("s", "pi", abs),
            variables.create("s", "pi", "float", 3, overwrite=True),
            variables.update_many("s", {"x": 1, "pi": 3}),
        ):
            with pytest.raises(ReadOnlyVariable, match="'pi'"):
                await write
        assert [one.name for one in await variables.list("s")] == ["pi"]
        assert await variables.delete("s", "pi")


async def test_a_session_holds_no_more_than_it_may(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await state.sessions.start("small", quotas=Quotas(variables=2, bytes=1000))
        await variables.put("small", "a", "x" * 900)
        with pytest.raises(QuotaExceeded) as caught:
            await variables.put("small", "b", "x" * 200)
        assert caught.value.details["quota"] == "bytes"
        assert (caught.value.details["wanted"], caught.value.details["limit"]) == (1100, 1000)
        await variables.put("small", "a", "x")  # less is always welcome
        await variables.put("small", "b", "x" * 900)
        with pytest.raises(QuotaExceeded, match="3 variables in session 'small'"):
            await variables.put("small", "c", 1)
        with pytest.raises(QuotaExceeded):
            await variables.update_many("small", {"b": "", "c": 1})
        assert await variables.get_many("small", "abc") == {"a": "x", "b": "x" * 900}
        await variables.delete("small", "a")
        await variables.put("small", "c", 1)
        await variables.update_many("small", {"c": 2})


async def test_the_quota_of_what_has_expired_is_given_back() -> None:
    async with running_state() as state:
        variables = state.variables
        await state.sessions.start("small", quotas=Quotas(variables=1), ttl=None)
        for number in range(3):
            await variables.create("small", "a", "integer", number, ttl=1)
            state.clock.now += 2
        await state.sessions.sweep()
        await variables.put("small", "b", 1)
        with pytest.raises(QuotaExceeded):
            await variables.put("small", "a", 1)
