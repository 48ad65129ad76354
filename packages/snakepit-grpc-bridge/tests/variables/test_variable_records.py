"""What is known of a variable besides its value, and which types the documentation names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from state_services import running_state

from snakepit_grpc_bridge.errors import ReadOnlyVariable, VariableNotFound
from snakepit_grpc_bridge.variables.types import TypeRegistry

DOCUMENT = Path(__file__).parents[4] / "docs" / "variable-types.md"
#: A row of its table: a type, what it takes, its constraints, what a reader gets.
ROW = re.compile(r"^\| `(\w+)` \|[^|\n]*\|([^|\n]*)\|[^|\n]*\|$", re.MULTILINE)


async def test_a_variable_tells_what_it_was_declared_with(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await variables.create("s", "plain", "float", 1.0)
        await variables.create(
            "s", "pi", "float", 3.14, constraints={"min": 3, "nullable": True},
            metadata={"unit": "rad"}, read_only=True,
        )  # fmt: skip
        plain = await variables.get_variable("s", "plain")
        assert (plain.constraints, plain.metadata, plain.read_only) == ({}, {}, False)
        pi = await variables.get_variable("s", "pi")
        assert (pi.constraints, pi.read_only) == ({"min": 3, "nullable": True}, True)
        assert pi.metadata == {"unit": "rad"}
        with pytest.raises(ReadOnlyVariable):
            await variables.set("s", "pi", 3)
        assert await variables.list("s") == [pi, plain]


async def test_the_metadata_of_a_write_are_merged_into_those_there_are(storage_url: str) -> None:
    async with running_state(storage_url) as state:
        variables = state.variables
        await variables.create("s", "n", "integer", 1, metadata={"a": 1, "b": {"x": 1}})
        await variables.set("s", "n", 2, metadata={"b": {"y": 2}, "c": 3})
        await variables.set("s", "n", 3)
        read = await variables.get_variable("s", "n")
        assert read.metadata == {"a": 1, "b": {"y": 2}, "c": 3}


async def test_two_states_in_one_process_share_nothing() -> None:
    async with running_state() as one, running_state() as other:
        await one.variables.put("s", "x", 1)
        await one.variables.put("s", "own", 1)
        await one.variables.put("global", "shared", 1)
        await other.variables.put("s", "x", 2)
        await one.tools.register("nothing", lambda: None)
        assert [await state.variables.get("s", "x") for state in (one, other)] == [1, 2]
        for session_id, name in (("s", "own"), ("global", "shared")):
            with pytest.raises(VariableNotFound):
                await other.variables.get(session_id, name)
        assert await other.tools.list() == []


def test_the_documentation_names_all_types_and_their_constraints() -> None:
    # Of each it says once, below the table, that it takes "nullable".
    told = {
        name: {*re.findall(r"`(\w+)`", constraints), "nullable"}
        for name, constraints in ROW.findall(DOCUMENT.read_text())
    }
    assert told == {name: set(taken) for name, taken in TypeRegistry().supported().items()}
