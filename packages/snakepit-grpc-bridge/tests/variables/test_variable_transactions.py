"""Several reads and writes together, and variables as the fields of a class."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pydantic
import pytest
from state_services import State, running_state

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import (
    UnsupportedType,
    ValidationFailed,
    VariableConflict,
    VariableNotFound,
)
from snakepit_grpc_bridge.variables import VariableTransaction
from snakepit_grpc_bridge.variables.writing import ANY_VERSION


async def test_all_of_a_transaction_takes_effect_or_nothing(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await variables.update_many("s", {"budget": 10, "old": 1})
        async with variables.transaction("s") as tx:
            rest = await tx.get("budget") - 3
            tx.set("budget", rest)
            tx.set("spent", await tx.get("spent", 0) + 3)
            tx.delete("old")
            assert await tx.get("budget") == 7  # its own write
            assert await tx.get("old", None) is None
            assert await variables.get("s", "budget") == 10  # not yet for others
        assert await variables.get_many("s", ["budget", "spent", "old"]) == {
            "budget": 7, "spent": 3,
        }  # fmt: skip


async def test_a_transaction_that_fails_writes_nothing() -> None:
    async def breaks(tx: VariableTransaction) -> None:
        tx.set("budget", 0)
        raise RuntimeError

    async def writes_what_does_not_fit(tx: VariableTransaction) -> None:
        tx.set("spent", 5)
        tx.set("budget", "nothing")

    async with running_state() as state:
        variables = state.variables
        await variables.update_many("s", {"budget": 7, "spent": 3})
        with pytest.raises(RuntimeError):
            await transact(state, breaks)
        with pytest.raises(ValidationFailed):
            await transact(state, writes_what_does_not_fit)
        assert await variables.get_many("s", ["budget", "spent"]) == {"budget": 7, "spent": 3}


async def test_a_transaction_fails_if_what_it_read_was_written_meanwhile() -> None:
    async with running_state() as state:
        variables = state.variables
        await variables.update_many("s", {"a": 1, "b": 1})
        for meanwhile in (
            variables.put("s", "a", 2),
            variables.delete("s", "a"),
            variables.put("s", "a", 3),  # it saw that there was none
        ):

            async def overtaken(
                tx: VariableTransaction, other: Awaitable[object] = meanwhile
            ) -> None:
                tx.set("b", await tx.get("a", 0) + 1)
                await other

            with pytest.raises(VariableConflict):
                await transact(state, overtaken)

        async def reads_only(tx: VariableTransaction) -> None:
            await tx.get("a")
            await variables.put("s", "a", 4)

        with pytest.raises(VariableConflict):
            await transact(state, reads_only)
        assert await variables.get("s", "b") == 1


async def test_misused_transactions() -> None:
    async with running_state() as state:
        async with state.variables.transaction("s") as tx:
            with pytest.raises(VariableNotFound):
                await tx.get("never")
            tx.set("a", 1)
            tx.delete("a")
            with pytest.raises(VariableNotFound):
                await tx.get("a")
        with pytest.raises(ConfigurationError, match="has ended"):
            tx.set("a", 1)
        with pytest.raises(ConfigurationError, match="has ended"):
            await tx.get("a")


async def test_transfers_between_two_accounts_keep_the_sum(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        await state.variables.update_many("s", {"a": 100, "b": 100})
        await asyncio.gather(*(_transfer(state, number) for number in range(10)))
        after = await state.variables.get_many("s", ["a", "b"])
        assert after == {"a": 100 - sum(range(10)), "b": 100 + sum(range(10))}


async def transact(state: State, work: Callable[[VariableTransaction], Awaitable[None]]) -> None:
    async with state.variables.transaction("s") as tx:
        await work(tx)


async def _transfer(state: State, amount: int) -> None:
    while True:
        try:
            async with state.variables.transaction("s") as tx:
                tx.set("a", await tx.get("a") - amount)
                tx.set("b", await tx.get("b") + amount)
            return
        except VariableConflict:
            continue


async def test_update_is_atomic(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        await state.variables.put("s", "n", 0)
        await asyncio.gather(
            *(state.variables.update("s", "n", lambda number: number + 1) for _ in range(30))
        )
        assert await state.variables.get("s", "n") == 30


async def test_updates_with_a_default_create_one_and_lose_nothing(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        update = functools.partial(state.variables.update, "s", "n", lambda number: number + 1)
        with pytest.raises(VariableNotFound):
            await update()
        await asyncio.gather(*(update(default=10) for _ in range(5)))
        assert await state.variables.get("s", "n") == 15
        record = await state.variables.get_variable("s", "n")
        assert (record.type, record.inferred) == ("integer", True)
        await state.variables.delete("s", record.id)
        with pytest.raises(VariableNotFound):  # no variable is created with an id
            await state.variables.update("s", record.id, str, default=10)


async def test_a_default_that_is_changed_in_place_is_the_default_of_the_next_one(
    storage_url: str,
) -> None:
    empty: list[str] = []

    def noted(names: list[str]) -> list[str]:
        names.append("ada")
        return names

    async with running_state(storage_url) as state:
        for name in ("first", "second"):
            await state.variables.update("s", name, noted, default=empty)
            assert await state.variables.get("s", name) == ["ada"]
    assert empty == []


# --- the fields of a class ------------------------------------------------------------------------


@dataclass
class Search:
    query: str
    limit: int = 10
    tags: list[str] = field(default_factory=list)


class Model(pydantic.BaseModel):
    temperature: float = pydantic.Field(0.7, ge=0, le=2)
    name: str


async def test_reading_and_writing_a_dataclass() -> None:
    async with running_state() as state:
        with pytest.raises(ValidationFailed, match=r"do not make a Search \(not set: query"):
            await state.variables.read_as("s", Search)
        await state.variables.put("s", "query", "apples")
        assert await state.variables.read_as("s", Search) == Search("apples")
        await state.variables.write_from("s", Search("pears", 3, ["fruit"]))
        assert await state.variables.get("s", "limit") == 3
        assert await state.variables.read_as("s", Search) == Search("pears", 3, ["fruit"])


async def test_reading_and_writing_a_pydantic_model() -> None:
    async with running_state() as state:
        await state.variables.write_from("s", Model(name="m", temperature=1))
        assert await state.variables.read_as("s", Model) == Model(name="m", temperature=1)
        await state.variables.put("s", "temperature", 9)
        with pytest.raises(ValidationFailed, match="do not make a Model") as caught:
            await state.variables.read_as("s", Model)
        assert isinstance(caught.value.__cause__, pydantic.ValidationError)
        others: list[Any] = [dict, "text", Search("x")]
        for other in others:
            with pytest.raises(ValidationFailed, match="a dataclass or a pydantic model"):
                await state.variables.read_as("s", other)
        with pytest.raises(ValidationFailed, match="a dataclass or a pydantic model"):
            await state.variables.write_from("s", {"a": 1})


async def test_each_creation_is_logged_when_it_is_committed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running_state() as state:
        variables = state.variables
        with caplog.at_level(logging.DEBUG, "snakepit_grpc_bridge"):
            await variables.put("s", "put", "canary")
            await variables.put("s", "put", "canary again")
            await variables.create("s", "put", "list", ["canary"], overwrite=True)
            async with variables.transaction("s") as tx:
                tx.set("in-transaction", 1)
            with pytest.raises(UnsupportedType):
                await variables.update_many("s", {"rolled-back": 1, "none": object()})
            async with await variables.watch("s"):
                await variables.update_many("s", {"put": [], "watched": 1.5})
            await state.access.put_from_worker("s", "by-worker", True, ANY_VERSION, "w")
    assert [record.getMessage() for record in caplog.records] == [
        f"variable {name!r} of type {kind!r} created in session 's'"
        for name, kind in [
            *[("put", "string"), ("put", "list"), ("in-transaction", "integer")],
            *[("watched", "float"), ("by-worker", "boolean")],
        ]
    ]
