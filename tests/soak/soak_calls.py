"""The kinds of calls and disturbances of the soak, and the record of what became of each."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from fault_pool import keeper_of, pids_of, template_of

from snakepit import Pool
from snakepit.errors import (
    CallTimeout,
    RemoteError,
    SnakepitError,
    StreamBroken,
    WorkerHung,
    WorkerLost,
)

#: What may become of any call while workers die, freeze and are recycled.
DISTURBED = (WorkerLost, WorkerHung, StreamBroken)


@dataclass
class Ledger:
    """Every call by its kind and its end; what no call may end as is in ``wrong``."""

    made: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    disturbances: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def unary(pool: Pool, dice: random.Random) -> bool:
    number = dice.randrange(2**70)
    return bool(await pool.execute("echo", {"value": number}) == number)


async def unary_async(pool: Pool, dice: random.Random) -> bool:
    number = dice.randrange(2**40)
    return bool(await pool.execute("aadd", {"x": number, "y": 0}) == number)


async def in_session(pool: Pool, dice: random.Random) -> bool:
    number, session = dice.randrange(2**40), f"session-{dice.randrange(50)}"
    return bool(await pool.execute("echo", {"value": number}, session_id=session) == number)


async def nested(pool: Pool, dice: random.Random) -> bool:
    args = {"name": "answer"}
    return bool(await pool.execute("acall_host", args) == 42)


async def large(pool: Pool, dice: random.Random) -> bool:
    value = dice.randbytes(1 << dice.randrange(10, 22))
    return bool(await pool.execute("echo", {"value": value}) == value)


async def stream(pool: Pool, dice: random.Random) -> bool:
    command, n = dice.choice(["count", "acount"]), dice.randrange(300)
    items = [item async for item in pool.execute_stream(command, {"n": n})]
    return items == list(range(n))


async def stream_left_early(pool: Pool, dice: random.Random) -> bool:
    last = dice.randrange(100)
    command = dice.choice(["count", "acount"])
    async with aclosing(pool.execute_stream(command, {"n": 10**9})) as items:
        async for item in items:
            if item == last:
                break
    return True


async def cancelled(pool: Pool, dice: random.Random) -> bool:
    command = dice.choice(["echo", "aecho"])
    call = asyncio.create_task(pool.execute(command, {"value": 1}))
    asyncio.get_running_loop().call_later(dice.uniform(0, 0.002), call.cancel)
    await asyncio.wait([call])
    return call.cancelled() or call.exception() is not None or call.result() == 1


async def late(pool: Pool, dice: random.Random) -> bool:
    command = dice.choice(["sleep", "spin", "async_for_ever"])
    try:
        await pool.execute(command, timeout=dice.uniform(0.001, 0.1))
    except CallTimeout:
        return True
    return False


async def failing(pool: Pool, dice: random.Random) -> bool:
    try:
        await pool.execute("fail_with", {"kind": dice.choice(["two_arguments", "group"])})
    except RemoteError:
        return True
    return False


async def deadly(pool: Pool, dice: random.Random) -> bool:
    try:
        await pool.execute("die", {"how": dice.choice(["kill", "segv", "abort", "exit0"])})
    except WorkerLost:
        return True
    return False


Kind = Callable[[Pool, random.Random], Awaitable[bool]]
#: Kind of call: its share. Deaths and late calls cost a process each, so they are rare.
KINDS: dict[Kind, int] = {
    unary: 400, unary_async: 200, in_session: 200, nested: 100, large: 40, stream: 60,
    stream_left_early: 40, cancelled: 60, late: 4, failing: 40, deadly: 2,
}  # fmt: skip


async def make_calls(
    pool: Pool, dice: random.Random, ledger: Ledger, over: Callable[[], bool]
) -> None:
    """Make calls of random kinds, one after the other, until ``over()``."""
    kinds, shares = list(KINDS), list(KINDS.values())
    while not over():
        kind = dice.choices(kinds, shares)[0]
        name = kind.__name__
        ledger.made[name] += 1
        try:
            good = await kind(pool, dice)
        except DISTURBED as error:
            ledger.ended[type(error).__name__] += 1
        except SnakepitError as error:
            ledger.ended[type(error).__name__] += 1
            ledger.wrong.append(f"{name}: {error!r}")
        else:
            ledger.ended["as it should" if good else "wrong"] += 1
            if not good:
                ledger.wrong.append(f"{name}: not its own result")


def _kill(pid: int | None) -> None:
    # Looked up once: none that is up is 0, which is this test with all of its process group.
    if pid is not None and pid > 1:
        os.kill(pid, signal.SIGKILL)


def disturb(pool: Pool, dice: random.Random, ledger: Ledger) -> None:
    """Do something to the pool's processes that no program could have asked for."""
    what = dice.choices(["kill", "freeze", "terminate", "template", "keeper"], [60, 8, 20, 4, 1])[0]
    ledger.disturbances[what] += 1
    with suppress(IndexError, ProcessLookupError):  # all are being replaced; it is dead already
        match what:
            case "template":
                _kill(template_of(pool))
            case "keeper":
                _kill(keeper_of(pool))
            case _:
                numbers = {"freeze": signal.SIGSTOP, "terminate": signal.SIGTERM}
                os.kill(dice.choice(pids_of(pool)), numbers.get(what, signal.SIGKILL))
