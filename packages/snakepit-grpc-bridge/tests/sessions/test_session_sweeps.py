"""Very many sessions that expire at once, while others of them are used."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from state_services import State, running_state

from snakepit_grpc_bridge.errors import SessionExpired
from snakepit_grpc_bridge.sessions import service

TTL = 100.0


class Users:
    """A task that uses one session after the other, round and round; meanwhile the time goes on so
    fast that they would expire several times if it did not.

    Attributes:
        turns: how many turns of the event loop another task has had.
    """

    def __init__(self, state: State, used: Sequence[str], unused: Sequence[str], step: float):
        self.turns = 0
        self._state = state
        self._used = used
        self._unused = unused
        self._step = step
        self._over = False
        self._tasks = [asyncio.create_task(each) for each in (self._use_all(), self._count())]

    async def _count(self) -> None:
        while not self._over:
            self.turns += 1
            await asyncio.sleep(0)

    async def _use_all(self) -> None:
        for number in itertools.count():
            if self._over:
                return
            await self._use(self._used[number % len(self._used)], number)
            with pytest.raises(SessionExpired):  # whether it has been swept or not
                await self._state.sessions.get(self._unused[-1 - number % len(self._unused)])
            self._state.clock.now += self._step
            await asyncio.sleep(0)

    async def _use(self, session_id: str, number: int) -> None:
        """In one of the ways there are."""
        way = number % 3
        if way == 0:
            await self._state.sessions.get(session_id)
        elif way == 1:
            await self._state.variables.put(session_id, "number", number)
        else:
            async with self._state.sessions.turn(session_id):
                pass

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize(
    ("storage", "batches", "in_a_batch"),
    [
        pytest.param("memory", 5000, 1, marks=pytest.mark.slow),
        pytest.param("sqlite", 250, 1, marks=pytest.mark.slow),
        pytest.param("memory", 5000, 20, marks=[pytest.mark.soak, pytest.mark.timeout(600)]),
    ],
    ids=["memory", "sqlite", "100_000"],
)
async def test_expired_sessions_are_swept_while_others_are_used(
    storage: str,
    batches: int,
    in_a_batch: int,
    sqlite_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "_BATCH", in_a_batch)
    url = sqlite_url if storage == "sqlite" else storage
    count = batches * in_a_batch
    unused = [f"unused-{number}" for number in range(count)]
    used = [f"used-{number}" for number in range(batches // 5)]
    async with running_state(url, max_sessions=2 * count) as state:
        for session_id in (*unused, *used):
            await state.sessions.start(session_id, ttl=TTL)
        state.clock.now += 0.9 * TTL
        for session_id in used:
            await state.sessions.get(session_id)
        state.clock.now += 0.2 * TTL
        users = Users(state, used, unused, step=2.5 * TTL / batches)
        turns_at: dict[str, int] = {}

        async def note(session_id: str) -> None:
            turns_at[session_id] = users.turns

        state.sessions.on_close(note)
        assert await state.sessions.sweep() == count
        await users.stop()
        assert sorted(turns_at) == sorted(unused)
        assert await state.sessions.sweep() == 0
        left = [session.id for session in await state.sessions.list()]
        assert left == sorted([*used, "global", "s"])
        # Between any two batches all others had their turn.
        ended_in_one_turn = [0] * (users.turns + 1)
        for turn in turns_at.values():
            ended_in_one_turn[turn] += 1
        assert max(ended_in_one_turn) == in_a_batch
