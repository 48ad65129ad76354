"""What the proxy does to frames is what a faulty peer would do; the pool survives all of it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from snakepit import Pool
from snakepit.errors import CallTimeout, SnakepitError, WorkerLost
from snakepit.testing import Direction, FaultyAdapter, FrameProxy, FrameRule, Tamper, until
from snakepit.wire.frames import FrameType, encode_frame

WORKER = "pool_worker:Worker"


def pool_behind(proxy: FrameProxy, **options: Any) -> Pool:
    return Pool(FaultyAdapter(WORKER, proxy=proxy), **{"size": 1, "cancel_grace": 0.05, **options})


async def assert_works(pool: Pool) -> None:
    assert await pool.execute("add", {"x": 2}, timeout=10) == 3


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_everything_works_through_a_proxy_without_rules(concurrency: int) -> None:
    proxy = FrameProxy()
    async with pool_behind(proxy, size=2, concurrency=concurrency) as pool:
        large = bytes(range(256)) * 40_000
        assert await pool.execute("echo", {"value": large}) == large
        assert [i async for i in pool.execute_stream("count", {"n": 100})] == [*range(100)]
        results = await asyncio.gather(*(pool.execute("add", {"x": x}) for x in range(50)))
        assert results == [x + 1 for x in range(50)]
        with pytest.raises(CallTimeout):
            await pool.execute("spin", timeout=0.05)
        await assert_works(pool)
    assert len(proxy.links) >= 2


@pytest.mark.parametrize("direction", Direction)
async def test_a_lost_frame_is_a_timeout(direction: Direction) -> None:
    kind = FrameType.CALL if direction is Direction.TO_WORKER else FrameType.RESULT
    rule = FrameRule(Tamper.DROP, kind, direction=direction)
    async with pool_behind(FrameProxy([rule])) as pool:
        with pytest.raises(CallTimeout):
            await pool.execute("add", {"x": 1}, timeout=1.0)
        assert rule.fired
        await assert_works(pool)


@pytest.mark.parametrize("tamper", [Tamper.TRUNCATE, Tamper.GARBAGE])
async def test_a_damaged_channel_costs_the_worker(tamper: Tamper) -> None:
    rule = FrameRule(tamper, FrameType.RESULT)
    async with pool_behind(FrameProxy([rule])) as pool:
        with pytest.raises(WorkerLost):
            await pool.execute("add", {"x": 1}, timeout=10)
        assert rule.fired
        await assert_works(pool)


async def test_a_repeated_result_is_noticed() -> None:
    rule = FrameRule(Tamper.DUPLICATE, FrameType.RESULT)
    async with pool_behind(FrameProxy([rule])) as pool:
        assert await pool.execute("add", {"x": 1}) == 2
        await until(lambda: pool.stats().workers_lost == 1, "the worker has broken the protocol")
        await assert_works(pool)
    assert rule.fired


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tamper", [Tamper.FLIP_HEADER, Tamper.FLIP_BODY])
@pytest.mark.parametrize("direction", Direction)
async def test_an_inverted_bit_ends_in_an_answer_or_a_typed_error(
    direction: Direction, tamper: Tamper, seed: int
) -> None:
    kind = FrameType.CALL if direction is Direction.TO_WORKER else FrameType.RESULT
    rule = FrameRule(tamper, kind, direction=direction)
    async with pool_behind(FrameProxy([rule], seed=seed)) as pool:
        call = asyncio.create_task(pool.execute("echo", {"value": "a text"}, timeout=1.0))
        await asyncio.wait([call])
        assert rule.fired
        assert isinstance(call.exception(), SnakepitError | None)
        await assert_works(pool)


async def test_a_frame_is_held_back_until_it_is_released() -> None:
    rule = FrameRule(Tamper.HOLD, FrameType.RESULT)
    async with pool_behind(FrameProxy([rule])) as pool:
        call = asyncio.create_task(pool.execute("add", {"x": 1}))
        await until(lambda: rule.fired, "the result is on its way")
        assert not call.done()
        rule.release()
        assert await call == 2
        await assert_works(pool)


async def test_the_death_of_a_worker_passes_a_held_frame() -> None:
    """What was held back is lost with the link, and nothing is left of it."""
    rule = FrameRule(Tamper.HOLD, FrameType.ITEM)
    async with pool_behind(FrameProxy([rule])) as pool:
        items = pool.execute_stream("count", {"n": 3})
        call = asyncio.ensure_future(anext(items))
        await until(lambda: rule.fired, "an item is on its way")
        call.cancel()
        await asyncio.wait([call])
        await assert_works(pool)


async def test_a_rule_strikes_as_often_and_as_late_as_it_says() -> None:
    rule = FrameRule(Tamper.DROP, FrameType.ITEM, times=2, after=1)
    async with pool_behind(FrameProxy([rule])) as pool:
        items = [item async for item in pool.execute_stream("count", {"n": 5})]
    assert rule.count == 2
    assert len(items) < 5
    assert items[0] == 0


async def test_a_frame_can_be_rewritten() -> None:
    def forge(frame: bytes, source: random.Random) -> bytes:
        return frame.replace(b"honest", b"forged")

    rule = FrameRule(forge, FrameType.RESULT)
    async with pool_behind(FrameProxy([rule])) as pool:
        assert await pool.execute("echo", {"value": "honest"}) == "forged"
        assert await pool.execute("echo", {"value": "honest"}) == "honest"


async def test_forged_bytes_can_be_injected() -> None:
    proxy = FrameProxy()
    async with pool_behind(proxy) as pool:
        await assert_works(pool)
        forged = encode_frame(FrameType.RESULT, 999, b"\x91\x01")
        proxy.links[0].inject(Direction.TO_HOST, forged)
        await until(lambda: pool.stats().workers_lost == 1, "the worker has broken the protocol")
        await assert_works(pool)
        proxy.links[1].cut()
        await until(lambda: pool.stats().workers_lost == 2, "the link is lost")
        await assert_works(pool)


async def test_damage_can_be_repeated() -> None:
    def damage(seed: int) -> list[bool]:
        proxy = FrameProxy([], seed=seed)
        rule = FrameRule(Tamper.DROP, times=100, chance=0.5)
        strikes = rule._strikes
        return [strikes(FrameType.ITEM, Direction.TO_HOST, proxy.random) for _ in range(20)]

    assert damage(1) == damage(1)
    assert damage(1) != damage(2)
