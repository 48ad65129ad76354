"""Whose turn it is in a session."""

from __future__ import annotations

import asyncio

import pytest
from state_services import running_state

from snakepit.errors import QueueTimeout
from snakepit_grpc_bridge.errors import SessionNotFound


async def test_calls_of_a_session_run_one_after_another_in_order() -> None:
    async with running_state() as state:
        running: list[int] = []
        order: list[int] = []

        async def call(number: int) -> None:
            async with state.sessions.turn("s"):
                running.append(number)
                assert running == [number]
                await asyncio.sleep(0)
                running.remove(number)
                order.append(number)

        await asyncio.gather(*map(call, range(20)))
        assert order == list(range(20))


async def test_a_session_may_run_several_calls_at_a_time() -> None:
    async with running_state() as state:
        await state.sessions.start("wide", concurrency=3)
        inside = 0
        most = 0

        async def call() -> None:
            nonlocal inside, most
            async with state.sessions.turn("wide"):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(call() for _ in range(10)))
        assert most == 3


async def test_waiting_for_a_turn_has_an_end() -> None:
    async with running_state() as state:
        async with state.sessions.turn("s"):
            with pytest.raises(QueueTimeout, match=r"session 's' waited .* higher concurrency"):
                async with state.sessions.turn("s", timeout=0.001):
                    pass
            waiting = asyncio.create_task(_take(state, "s"))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            other = asyncio.create_task(_take(state, "s"))
        await other
        async with state.sessions.turn("s", timeout=0):
            pass  # nobody is before it


async def test_a_call_that_waits_does_not_run_in_a_session_that_was_closed_meanwhile() -> None:
    async with running_state() as state:
        async with state.sessions.turn("s"):
            waiting = asyncio.create_task(_take(state, "s"))
            await asyncio.sleep(0)
            await state.sessions.close("s")
        with pytest.raises(SessionNotFound):
            await waiting


async def _take(state: object, session_id: str) -> None:
    async with state.sessions.turn(session_id):  # type: ignore[attr-defined]
        pass
