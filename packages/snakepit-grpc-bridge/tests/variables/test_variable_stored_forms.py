"""Values that somebody else has written into the database, and that their types do not have."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from state_services import State, running_state

from snakepit.errors import DecodeError
from snakepit_grpc_bridge.storage import Transaction
from snakepit_grpc_bridge.variables import Secret
from snakepit_grpc_bridge.variables.rows import VARIABLES

#: By type: a value, and what is stored in its place.
FOREIGN: dict[str, tuple[Any, Any]] = {
    "boolean": (True, 1), "integer": (1, "one"), "float": (1.0, 1), "string": ("a", b"a"),
    "binary": (b"a", "a"), "datetime": (datetime.now(UTC), 0.5), "list": ([], {}), "map": ({}, []),
    "choice": ("a", ["a"]), "tensor": (np.zeros(2), [0.0, 0.0]), "embedding": ([1.0], [1.0]),
    "model": ("s3://a/b", "nowhere"), "dataset": ("s3://a/b", 7), "module": ("a.b", 3),
    "secret": ("hush", "hush"),
}  # fmt: skip


async def overwrite(state: State, name: str, plain: Any) -> None:
    def work(tx: Transaction) -> None:
        row = tx.get(VARIABLES, "s", name)
        assert row is not None
        tx.put(VARIABLES, dataclasses.replace(row, value=plain))

    await state.storage.transact(work)


async def test_what_a_type_does_not_have_is_told_with_the_type_and_can_be_written_anew(
    sqlite_url: str,
) -> None:
    keys = (Secret(Fernet.generate_key().decode()),)
    async with running_state(sqlite_url, secret_keys=keys) as state:
        assert set(FOREIGN) | {"any"} == set(state.variables.types.supported())
        for kind, (value, foreign) in FOREIGN.items():
            limits = {"choices": ["a"]} if kind == "choice" else {}
            before = await state.variables.create("s", kind, kind, value, constraints=limits)
            await state.access.find_for_worker("s", kind)
            await overwrite(state, kind, foreign)
            refused = pytest.raises(DecodeError, match=f"of type '{kind}' is no such value")
            with refused as told:
                await state.variables.get("s", kind)
            assert told.value.details == {"type": kind}
            assert "hush" not in str(told.value)
            with refused:
                await state.access.find_for_worker("s", kind)
            assert (await state.variables.set("s", kind, value)).version == before.version + 1
