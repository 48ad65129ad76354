"""The id of a variable names this very variable, and no later one of its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from state_services import State, running_state

from snakepit_grpc_bridge.errors import ValidationFailed, VariableConflict, VariableNotFound
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION
from snakepit_grpc_bridge.variables import Variable

# The clock of these tests stands still: all that is created is created at the same moment.


async def test_an_id_does_for_a_name_everywhere(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        made = await variables.create("s", "n", "integer", 1, constraints={"max": 99})
        identifier = made.id
        assert identifier.startswith("n@")
        assert await variables.get("s", identifier) == 1
        assert await variables.get_variable("s", identifier) == made
        assert await variables.exists("s", identifier)
        assert await variables.get_many("s", [identifier, "n"]) == {identifier: 1, "n": 1}
        writes = [
            await variables.set("s", identifier, 2, expected_version=0),
            await variables.put("s", identifier, 3),
            await variables.update("s", identifier, lambda value: value + 1),
            (await variables.update_many("s", {identifier: 5}))[identifier],
            await variables.rollback("s", identifier, 0),
        ]
        assert [one.value for one in writes if isinstance(one, Variable)] == [2, 3, 4, 5, 1]
        assert {one.id for one in writes if isinstance(one, Variable)} == {identifier}
        assert (await variables.explain("s", identifier)).scope == "session"
        versions = [one.version for one in await variables.history("s", identifier)]
        assert versions == [4, 3, 2, 1, 0]
        async with variables.transaction("s") as tx:
            tx.set("n", await tx.get(identifier) + 10)
            assert await tx.get(identifier) == 11
            tx.set(identifier, 12)
            assert await tx.get("n") == 12
        assert await variables.get("s", "n") == 12
        async with variables.transaction("s") as tx:
            tx.delete(identifier)
            assert await tx.get("n", None) is await tx.get(identifier, None) is None
        assert not await variables.exists("s", "n")
        assert await variables.list("s") == []


def _uses(state: State, identifier: str) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    """All ways to use a variable that has to be there."""
    variables = state.variables

    async def read() -> None:
        async with variables.transaction("s") as tx:
            await tx.get("n", None)
            await tx.get(identifier)

    async def write() -> None:
        async with variables.transaction("s") as tx:
            tx.set(identifier, 9)

    return [
        read, write,
        lambda: variables.get("s", identifier),
        lambda: variables.get_variable("s", identifier),
        lambda: variables.set("s", identifier, 9),
        lambda: variables.put("s", identifier, 9),
        lambda: variables.put("s", identifier, 9, expected_version=None),
        lambda: variables.update("s", identifier, lambda value: value + 1),
        lambda: variables.update_many("s", {identifier: 9}),
        lambda: variables.history("s", identifier),
        lambda: variables.rollback("s", identifier, 0),
    ]  # fmt: skip


async def _delete(state: State) -> None:
    await state.variables.delete("s", "n")


async def _delete_and_create(state: State) -> None:
    await state.variables.delete("s", "n")
    await state.variables.put("s", "n", 5)


async def _overwrite(state: State) -> None:
    await state.variables.create("s", "n", "integer", 5, overwrite=True)


async def _expire(state: State) -> None:
    state.clock.now += 61
    await state.variables.put("s", "n", 5)


@pytest.mark.parametrize("end", [_delete, _delete_and_create, _overwrite, _expire])
async def test_an_id_never_means_a_later_variable_of_its_name(
    storage_url: str, end: Callable[[State], Coroutine[Any, Any, None]]
) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        before = await variables.create("s", "n", "integer", 1, ttl=60)
        await end(state)
        successor = None
        if end is not _delete:
            after = await variables.get_variable("s", "n")
            successor = after.id
            assert successor != before.id
        for use in _uses(state, before.id):
            with pytest.raises(VariableNotFound, match="any more: it was deleted") as caught:
                await use()
            details = caught.value.details
            assert (details["name"], details["successor"]) == ("n", successor)
        assert await variables.get("s", before.id, "default") == "default"
        assert await variables.get_many("s", [before.id]) == {}
        assert not await variables.exists("s", before.id)
        assert not await variables.delete("s", before.id)
        assert (await variables.explain("s", before.id)).scope is None
        async with variables.transaction("s") as tx:
            assert await tx.get(before.id, 0) == 0
            tx.delete(before.id)
        assert await variables.get("s", "n", None) == (None if successor is None else 5)


async def test_the_states_of_an_earlier_variable_are_none_of_an_id(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        for value in (1, 2):
            await variables.put("s", "n", value)
        await variables.create("s", "n", "integer", 3, overwrite=True)
        made = await variables.put("s", "n", 4)
        assert [one.value for one in await variables.history("s", made.id)] == [3]
        assert [one.value for one in await variables.history("s", "n")] == [3, 2, 1]
        with pytest.raises(ValidationFailed, match="no value of version 1"):
            await variables.rollback("s", made.id, 1)
        assert (await variables.rollback("s", made.id, 2)).value == 3
        assert (await variables.rollback("s", "n", 1)).value == 2


async def test_an_id_is_one_of_its_scope(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        shared = await variables.put(GLOBAL_SESSION, "n", 1)
        assert await variables.get("s", shared.id) == 1
        state.clock.now += 1
        own = await variables.put("s", "n", 2)
        # Its own one hides the global one's name, not its id.
        assert await variables.get_many("s", ["n", own.id, shared.id]) == {
            "n": 2, own.id: 2, shared.id: 1,
        }  # fmt: skip
        for write in (variables.put("s", shared.id, 3), variables.set("s", shared.id, 3)):
            with pytest.raises(VariableNotFound, match="another session"):
                await write
        with pytest.raises(VariableNotFound):
            await variables.get(GLOBAL_SESSION, own.id)


async def test_what_is_no_id(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        made = await state.variables.put("s", "n", 1)
        for text in ("n@", "@", f"{made.id}@", "n@zz", f"N{made.id}", made.id.upper()):
            assert not await state.variables.exists("s", text)
        for text in ("n@", "@" + "0" * 17, "n@zz", f"{made.id}@"):
            with pytest.raises(ValidationFailed, match="no variable name"):
                await state.variables.put("s", text, 1)
        with pytest.raises(ValidationFailed, match="no variable name"):
            await state.variables.create("s", made.id, "integer", 1)


async def test_a_watch_by_id_ends_with_its_variable_and_goes_on_by_name(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        first = await variables.put("s", "n", 1)
        by_id = await variables.watch("s", first.id, initial=False)
        by_name = await variables.watch("s", "n", initial=False)

        async def told() -> list[tuple[str, str, Any]]:
            changes = [await asyncio.wait_for(anext(watch), 30) for watch in (by_id, by_name)]
            return [(one.id, one.kind, one.value) for one in changes]

        await variables.put("s", "n", 2)
        assert await told() == [(first.id, "updated", 2)] * 2
        second = await variables.create("s", "n", "integer", 2, overwrite=True)
        assert await told() == [(first.id, "deleted", None), (second.id, "updated", 2)]
        await variables.put("s", "n", 3)
        await variables.delete("s", second.id)
        await state.sessions.close("s")
        assert [change.kind async for change in by_id] == []
        assert [(one.id, one.type, one.kind) async for one in by_name] == [
            (second.id, "integer", "deleted"),
        ]


async def test_what_made_a_write_is_known_also_of_earlier_ones(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        watch = await variables.watch("s", "n")
        assert (await variables.create("s", "n", "integer", 1, ttl=9.5)).source == "host"
        made = await variables.put("s", "n", 2, by="programs-1")
        assert (made.source, made.updated_by, made.ttl) == ("worker", "programs-1", 9.5)
        back = await variables.rollback("s", "n", 0)
        assert (back.source, back.updated_by) == ("rollback", None)
        change = await asyncio.wait_for(anext(watch), 30)
        assert (change.source, change.value) == ("rollback", 1)
        await variables.delete("s", "n")
        deletion = await asyncio.wait_for(anext(watch), 30)
        assert (deletion.kind, deletion.source) == ("deleted", "host")
        earlier = await variables.history("s", "n")
        assert [one.source for one in earlier] == ["host", "rollback", "worker", "host"]


async def test_a_transaction_notices_that_its_variable_was_replaced(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        made = await variables.put("s", "n", 1)

        async def pay() -> None:
            async with variables.transaction("s") as tx:
                assert await tx.get(made.id) == 1
                await _delete_and_create(state)
                tx.set(made.id, 2)

        with pytest.raises(VariableConflict):
            await pay()
        assert await variables.get("s", "n") == 5
