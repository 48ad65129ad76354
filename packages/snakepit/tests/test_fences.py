"""Host functions that do what must not be done twice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from after_check import CheckedPool
from processes import until

from snakepit import HostCall, PythonAdapter
from snakepit.errors import WorkerLost


async def test_56_a_call_that_did_what_must_not_be_done_twice_is_not_to_be_retried() -> None:
    async def pay(call: HostCall, number: int) -> int:
        if number == 0:
            call.fence()
            os.kill(int(pool.workers()[0].pid or 0), signal.SIGKILL)
            await asyncio.Event().wait()
        nested = {"name": "pay", "args": {"number": number - 1}}
        return int(await pool.execute("call_host", nested, idempotent=True))

    adapter = PythonAdapter("pool_worker:Worker")
    async with CheckedPool(adapter, size=1, host_functions={"pay": pay}) as pool:
        for depth in range(3):
            payment = {"name": "pay", "args": {"number": depth}}
            with pytest.raises(WorkerLost) as caught:
                await pool.execute("call_host", payment, idempotent=True)
            assert not caught.value.retryable, f"{depth} calls in between"
            await until(lambda: pool.stats().ready == 1, "the worker is replaced")
