"""Part D: what a worker gone mad can put on its channel, and what the host makes of it."""

from __future__ import annotations

import asyncio
import os
import random
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fault_pool import (
    WORKER,
    Baseline,
    after_check,
    assert_serves,
    faulty_pool,
    fresh_calls,
    new_pool,
    outcomes_of,
    pids_of,
    resident_bytes,
    settled,
    until_full,
)
from fault_worker import frames_of_a_worker
from hostile_values import hostile_value

from snakepit import Pool, PythonAdapter
from snakepit.errors import (
    CallTimeout,
    DecodeError,
    EncodeError,
    PoolStartFailed,
    ProtocolError,
    RemoteError,
    SnakepitError,
    VersionMismatch,
    WorkerLost,
)
from snakepit.wire.codec import encode
from snakepit.wire.frames import MAX_BODY_BYTES, FrameType, encode_frame

pytestmark = pytest.mark.usefixtures("silent_on_stderr")
HEADER = struct.Struct("<IBBHQ")


def header(size: int, kind: int = FrameType.RESULT, flags: int = 0, reserved: int = 0) -> bytes:
    return HEADER.pack(size, kind, flags, reserved, 1)


async def outcome_of_raw(pool: Pool, data: bytes, **args: Any) -> Any:
    """What becomes of a call whose worker sends these bytes; a neighbour is not touched by it."""
    before = set(pids_of(pool))
    bad = asyncio.create_task(pool.execute("send_raw", {"data": data, **args}, timeout=10))
    await settled(lambda: pool.stats().running == 1 or bad.done(), "it is sent")
    neighbour = await pool.execute("echo", {"value": "mine"}, timeout=10)
    assert neighbour == "mine"
    (outcome,) = await outcomes_of(bad)
    assert len(before & set(pids_of(pool))) >= 1
    return outcome


# --- 27, 28: sizes -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 2**31, 2**32 - 1])
async def test_27_a_length_over_the_limit_is_refused_from_the_header_alone(size: int) -> None:
    async with faulty_pool() as pool:
        memory = resident_bytes()
        outcome = await outcome_of_raw(pool, header(size) + b"ten bytes!")
        assert isinstance(outcome, WorkerLost), repr(outcome)
        assert "protocol" in str(outcome.reason)
        assert resident_bytes() - memory < 8 << 20


async def test_27_a_length_that_is_not_kept_takes_no_memory_and_ends_at_the_deadline() -> None:
    async with faulty_pool() as pool:
        memory = resident_bytes()
        data = header(MAX_BODY_BYTES) + b"ten bytes!"
        with pytest.raises(CallTimeout):
            await pool.execute("send_raw", {"data": data}, timeout=0.2)
        assert resident_bytes() - memory < 8 << 20


async def test_27_a_count_inside_the_body_is_not_believed_either() -> None:
    async with faulty_pool() as pool:
        memory = resident_bytes()
        with pytest.raises(DecodeError):
            # An array of 4 G items.
            await pool.execute("answer_raw", {"body": b"\xdd\xff\xff\xff\xff"}, timeout=10)
        assert resident_bytes() - memory < 8 << 20


async def test_28_an_error_of_100_mb_is_cut() -> None:
    async with faulty_pool() as pool:
        with pytest.raises(RemoteError) as caught:
            await pool.execute("fail_with", {"kind": "huge"}, timeout=20)
        assert isinstance(caught.value, ValueError)
        assert 1000 < len(str(caught.value)) < 20_000


# --- 29: cuts and dribbles -----------------------------------------------------------------------


async def test_29_a_frame_cut_at_any_byte_is_a_death_and_never_a_result() -> None:
    async with faulty_pool() as pool:
        for number, frame in enumerate(frames_of_a_worker(1)):
            # The error's body is long; the cuts in its middle are alike.
            cuts = [*range(0, 22, 3), *range(22, len(frame), 61), len(frame) - 1]
            for cut in sorted({cut for cut in cuts if cut < len(frame)}):
                args = {"kind": number, "cut": cut}
                with pytest.raises(WorkerLost):
                    await pool.execute("die_in_a_frame", args, timeout=10)
                assert await pool.execute("add", {"x": cut}, timeout=10) == cut + 1


async def test_29_a_result_that_comes_byte_by_byte_is_a_result() -> None:
    async with faulty_pool() as pool:
        value = {"text": "x" * 100, "number": 2**70}
        assert await pool.execute("dribble", {"value": value}, timeout=10) == value
        await settled(lambda: pool.stats().workers_lost == 1, "it has died after its last byte")


async def test_29_many_frames_in_one_write_are_all_read() -> None:
    async with faulty_pool() as pool:
        stream = pool.execute_stream("items_in_one_write", {"count": 32}, timeout=10)
        assert [item async for item in stream] == list(range(32))


# --- 30: foreign bytes ---------------------------------------------------------------------------

FOREIGN = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("160301020001000001fc0303") + b"\x11" * 64,
    "random": random.Random(30).randbytes(4096),
    "zeros": bytes(64),
    "unknown type": header(1, kind=99) + b"\x90",
    "unknown flag": header(1, flags=0x80) + b"\x90",
    "reserved bit": header(1, reserved=1) + b"\x90",
    "a frame only hosts send": encode_frame(FrameType.WELCOME, 0, encode([1, {}])),
    "a second hello": encode_frame(FrameType.HELLO, 0, encode([[1], 1, {}])),
    "control on data": encode_frame(FrameType.PONG, 0, encode([1])),
    "a call id of the host's": encode_frame(
        FrameType.CALL, 7, encode(["answer", {}, None, None, 1, None]), 2
    ),
    "a call without a body": header(0, kind=FrameType.CALL),
}


async def test_30_foreign_bytes_end_the_connection_and_nothing_else() -> None:
    async with faulty_pool() as pool:
        for name, data in FOREIGN.items():
            outcome = await outcome_of_raw(pool, data)
            assert isinstance(outcome, WorkerLost), f"{name}: {outcome!r}"
            assert "protocol" in str(outcome.reason), name
            await until_full(pool)


BAD_BODIES = {
    "no body": b"",
    "no array": b"\x80",
    "an empty array": b"\x90",
    "trailing bytes": b"\x91\x01\x01",
    "a reserved byte": b"\x91\xc1",
    "invalid UTF-8": b"\x91\xa2\xff\xfe",
    "unfinished": b"\x92\x01",
}


async def test_30_a_bad_body_ends_its_call_and_keeps_the_worker() -> None:
    async with faulty_pool() as pool:
        before = set(pids_of(pool))
        for name, body in BAD_BODIES.items():
            (outcome,) = await outcomes_of(
                asyncio.create_task(pool.execute("answer_raw", {"body": body}, timeout=10))
            )
            assert isinstance(outcome, DecodeError | ProtocolError), f"{name}: {outcome!r}"
            assert set(pids_of(pool)) == before, name


async def test_30_elements_a_later_version_appended_are_ignored() -> None:
    async with faulty_pool() as pool:
        body = encode(["result", "of a later version", 3])
        assert await pool.execute("answer_raw", {"body": body}, timeout=10) == "result"


async def test_30_foreign_bytes_on_the_control_channel_end_the_connection() -> None:
    async with faulty_pool() as pool:
        with pytest.raises(WorkerLost, match="protocol"):
            await pool.execute("send_raw_control", {"data": FOREIGN["http"]}, timeout=10)


# --- 31: answers nobody asked for ----------------------------------------------------------------


@pytest.mark.parametrize("call_id", [2**63 - 1, 2, 0])
async def test_31_an_answer_to_a_call_that_is_not_open_ends_the_connection(call_id: int) -> None:
    """Never issued; even, so not the host's; the connection itself."""
    async with faulty_pool() as pool:
        data = encode_frame(FrameType.RESULT, call_id, encode(["stray"]))
        outcome = await outcome_of_raw(pool, data)
        assert isinstance(outcome, WorkerLost), repr(outcome)


async def test_31_a_call_answered_twice_has_its_first_answer_and_the_next_call_its_own() -> None:
    async with faulty_pool(size=1) as pool:
        args = {"kind": int(FrameType.RESULT), "body": ["first"]}
        assert await pool.execute("send_frame", args, timeout=10) == "first"
        # The engine's own answer came second and ended the connection.
        outcomes = await outcomes_of(
            *(asyncio.create_task(pool.execute("echo", {"value": i})) for i in range(20))
        )
        for number, outcome in enumerate(outcomes):
            assert outcome == number or isinstance(outcome, WorkerLost), repr(outcome)
        await settled(lambda: pool.stats().workers_lost == 1, "the liar is replaced")


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_31_a_late_answer_never_goes_to_the_next_call(concurrency: int) -> None:
    """Calls are given up around the moment of their answer, three hundred times."""
    async with faulty_pool(size=1, concurrency=concurrency, cancel_grace=5.0) as pool:
        dice = random.Random(31)
        for number in range(300):
            late = asyncio.create_task(pool.execute("echo", {"value": ("late", number)}))
            for _ in range(dice.randrange(8)):
                await asyncio.sleep(0)
            late.cancel()
            assert await pool.execute("echo", {"value": number}, timeout=10) == number
            await asyncio.wait([late])
            if not late.cancelled():
                assert late.result() == ("late", number)


# --- 33, 36: who may connect ---------------------------------------------------------------------


def sockets_of(pids: list[int]) -> set[str]:
    """The inodes of all sockets that these processes hold."""
    found = set()
    for pid in pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(fd.readlink()))
    return {name[8:-1] for name in found if name.startswith("socket:[")}


def open_doors(inodes: set[str]) -> list[str]:
    """Those sockets that somebody could connect to."""
    tcp = [
        row
        for name in ("tcp", "tcp6")
        for row in Path(f"/proc/net/{name}").read_text().splitlines()
    ]
    unix = Path("/proc/net/unix").read_text().splitlines()[1:]
    named = [row for row in unix if row.split()[6] in inodes and len(row.split()) > 7]
    return named + [row for row in tcp if row.split()[9] in inodes]


async def test_33_there_is_no_door_that_a_stranger_could_knock_at() -> None:
    async with faulty_pool() as pool:
        inodes = await asyncio.to_thread(sockets_of, [os.getpid(), *pids_of(pool)])
        assert len(inodes) >= 8
        assert await asyncio.to_thread(open_doors, inodes) == []


# --- 34: versions --------------------------------------------------------------------------------


@pytest.mark.parametrize(("versions", "starts"), [((2, 3), False), ((0,), False), ((1, 2), True)])
async def test_34_a_worker_of_another_version(
    versions: tuple[int, ...], starts: bool, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"from snakepit.wire import frames\nframes.PROTOCOL_VERSIONS = {versions}\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    pool = new_pool(adapter={"env": {"PYTHONPATH": path}, "start": "spawn"})
    if starts:
        async with pool:
            await fresh_calls(pool)
        return
    with pytest.raises(PoolStartFailed, match="same version of snakepit") as caught:
        await pool.start()
    cause = caught.value.__cause__
    assert isinstance(cause, VersionMismatch), repr(cause)
    assert cause.details["theirs"] == list(versions)
    await assert_serves(PythonAdapter(WORKER))


# --- 35: bombs -----------------------------------------------------------------------------------

BOMBS = {
    "nested 200 000 deep": b"\x91" * 200_001 + b"\x01",
    "equal keys": b"\x91\x82\xa1a\x01\xa1a\x02",
    "a list as a key": b"\x91\x81\x90\x01",
    "an unknown extension": b"\x91\xd4\x63\x00",
    "a time far out": b"\x91\xc7\x0c\xff" + b"\xff" * 12,
}


async def test_35_a_bomb_is_a_decode_error_of_its_call() -> None:
    async with faulty_pool() as pool:
        for name, body in BOMBS.items():
            (outcome,) = await outcomes_of(
                asyncio.create_task(pool.execute("answer_raw", {"body": body}, timeout=10))
            )
            assert isinstance(outcome, DecodeError), f"{name}: {outcome!r}"


PATHS = {
    "recursive": "value.outer",
    "deep": "value",
    "object": "value",
    "surrogate": "value",
    "nested": r"value\[1\].here",
}


async def test_35_an_argument_that_can_not_travel_names_its_path() -> None:
    async with faulty_pool() as pool:
        for kind, path in PATHS.items():
            value = hostile_value(kind)
            with pytest.raises(EncodeError, match=path):
                await pool.execute("echo", {"value": value})


# --- 37: output ----------------------------------------------------------------------------------


async def test_37_a_worker_that_prints_20_mb_is_not_blocked() -> None:
    async with faulty_pool(size=1) as pool:
        await pool.execute("print_much", {"megabytes": 20}, timeout=30)


async def test_37_junk_on_the_output_and_a_closed_output_harm_nobody() -> None:
    async with faulty_pool(size=1) as pool:
        await pool.execute("print_junk")
        await pool.execute("close_output")
        assert await pool.execute("add", {"x": 1}) == 2
        before = pids_of(pool)
        with pytest.raises(RemoteError, match="Bad file descriptor"):
            await pool.execute("print_much", {"megabytes": 1}, timeout=10)
        assert pids_of(pool) == before


async def test_37_stdin_is_empty() -> None:
    async with faulty_pool() as pool:
        assert await pool.execute("read_stdin", timeout=10) == ""


# --- 39: fuzz ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_39_damaged_frames_in_any_order_never_give_a_wrong_answer(seed: int) -> None:
    """Frames are dropped, doubled, swapped, cut and have bits flipped; the host outlives it."""
    dice = random.Random(seed)
    async with new_pool() as pool:
        await fresh_calls(pool)
        before = Baseline.take()
        for _ in range(25):
            frames = list(frames_of_a_worker(1 + 2 * dice.randrange(3)))
            frames += [encode_frame(FrameType.ITEM, 1, encode([[1, 2]]))]
            data = b"".join(_damaged(dice, frames))
            bad = asyncio.create_task(
                pool.execute("send_raw", {"data": data, "then": "die"}, timeout=0.5)
            )
            good = asyncio.create_task(pool.execute("echo", {"value": seed}, timeout=10))
            (outcome,) = await outcomes_of(bad)
            # Whatever it is, it ended; and a made-up "result" is all a liar can make of it.
            assert outcome is None or isinstance(outcome, SnakepitError | str), f"{seed}: {outcome}"
            (outcome,) = await outcomes_of(good)
            # The liar may have claimed to be free, and then died of it.
            assert outcome == seed or isinstance(outcome, WorkerLost), f"{seed}: {outcome}"
            with suppress(WorkerLost):  # a success now and then: this is no crash loop
                await pool.execute("add", {"x": 1}, timeout=10)
        await after_check(pool, before)


def _damaged(dice: random.Random, frames: list[bytes]) -> Iterator[bytes]:
    dice.shuffle(frames)
    for frame in frames:
        match dice.randrange(6):
            case 0:
                continue
            case 1:
                yield frame * 2
            case 2:
                yield frame[: dice.randrange(len(frame))]
            case 3:
                place = dice.randrange(len(frame))
                yield frame[:place] + bytes([frame[place] ^ (1 << dice.randrange(8))])
                yield frame[place + 1 :]
            case _:
                yield frame
