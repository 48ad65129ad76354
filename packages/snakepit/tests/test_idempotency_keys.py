"""The name that a caller gives to a call: who knows it by that, and who is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from snakepit import InlineAdapter, Pool, PythonAdapter, RetryPolicy, telemetry, with_policies
from snakepit.adapters.adapter import CallOptions
from snakepit.errors import ConfigurationError, PoisonCall, WorkerLost
from snakepit.testing import EventRecorder

WORKER = "keyed_worker:Keyed"
TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
ADAPTERS = pytest.mark.parametrize("adapter_class", [PythonAdapter, InlineAdapter])


@ADAPTERS
async def test_a_command_sees_its_calls_key(adapter_class: type) -> None:
    async with Pool(adapter_class(WORKER), size=1) as pool:
        assert await pool.execute("key", idempotency_key="order-17") == "order-17"
        assert await pool.execute("key") is None
        stream = pool.execute_stream("keys", idempotency_key="order-18")
        assert [key async for key in stream] == ["order-18"]
        session = pool.session("ada")
        assert await session.execute("key", idempotency_key="order-19") == "order-19"


async def test_the_key_of_one_call_is_not_that_of_its_batch() -> None:
    with EventRecorder():
        async with Pool(PythonAdapter(WORKER), size=1) as pool:
            rows = [
                pool.execute("batch_keys", {"row": row}, idempotency_key=f"row-{row}")
                for row in range(3)
            ]
            assert await asyncio.gather(*rows) == [None] * 3


async def test_a_call_keeps_its_key_beside_a_trace() -> None:
    telemetry.set_trace_source(lambda _: {"traceparent": TRACEPARENT})
    try:
        async with Pool(PythonAdapter(WORKER), size=1) as pool:
            assert await pool.execute("key", idempotency_key="order-17") == "order-17"
    finally:
        telemetry.set_trace_source(None)


async def test_a_retry_keeps_the_key(tmp_path: Path) -> None:
    async with Pool(PythonAdapter(WORKER), size=1) as pool:
        calls = with_policies(pool, RetryPolicy(first_delay=0.01))
        args = {"path": str(tmp_path / "died")}
        again = await calls.execute("die_once", args, idempotent=True, idempotency_key="k")
        assert again == "k"
        assert pool.stats().workers_lost == 1


async def test_an_adapter_of_ones_own_is_told_the_key() -> None:
    class Told:
        async def execute(self, worker: Any, command: str, args: Any, options: CallOptions) -> Any:
            return options.idempotency_key

    async with Pool(Told(), size=1) as pool:
        assert await pool.execute("any", idempotency_key="k") == "k"
        assert await pool.execute("any") is None


async def test_12_a_named_call_that_kills_its_workers_is_refused_whatever_its_arguments() -> None:
    times: Iterator[float] = itertools.count(1.5)

    async def die(key: str | None) -> Exception | None:
        try:
            await pool.execute("die", {"at": next(times)}, idempotency_key=key)
        except Exception as error:
            return error
        return None

    async with Pool(PythonAdapter(WORKER), size=1) as pool:
        ends = [await die("row-7") for _ in range(3)]
        assert [type(end) for end in ends] == [WorkerLost, WorkerLost, PoisonCall]
        assert "under this idempotency key" in str(ends[-1])
        assert [type(await die(key)) for key in ("row-8", None)] == [WorkerLost] * 2
        assert await pool.execute("key", idempotency_key="row-7") == "row-7"


@pytest.mark.parametrize("key", ["", "x" * 256, "two\nlines", "späť", b"bytes", 17, True])
async def test_51_a_key_that_is_none_is_refused(key: Any) -> None:
    async with Pool(InlineAdapter(WORKER), size=1) as pool:
        with pytest.raises(ConfigurationError, match=r"idempotency_key .* 1 to 255") as caught:
            await pool.execute("key", idempotency_key=key)
        assert caught.value.details["option"] == "idempotency_key"
        with pytest.raises(ConfigurationError, match="idempotency_key"):
            await anext(pool.execute_stream("keys", idempotency_key=key))
        assert pool.stats().submitted == 0
