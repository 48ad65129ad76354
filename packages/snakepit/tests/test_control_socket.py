"""The control socket: what it shows, whom it lets in, and that nobody can hurt the pool with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_pool import TESTS, held_call, make_old, sockets_below, use_folder, watched_pool
from processes import wait_until

from snakepit.control import server
from snakepit.control.client import ControlClient
from snakepit.control.folder import bind_socket, find_sockets, remove_socket, sweep_sockets
from snakepit.control.messages import MAX_REQUEST_BYTES, SNAPSHOT, read_answer, request_frame
from snakepit.control.server import CONTROL_VARIABLE
from snakepit.errors import ConfigurationError, ProtocolError, UnknownCommand
from snakepit.wire.frames import Frame, FrameDecoder, FrameType, encode_frame

HOST = """
import asyncio, signal
from snakepit import Pool, PythonAdapter

async def main():
    async with Pool(PythonAdapter("pool_worker:Worker"), size=1) as pool:
        print("open", flush=True)
        signal.pause()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    use_folder(tmp_path, monkeypatch)
    yield tmp_path
    assert sockets_below(tmp_path) == [], "the socket goes with its pool"


def the_socket() -> Path:
    (path,) = find_sockets()
    return path


def answer_to(data: bytes) -> list[Frame]:
    """What a client gets that sends these bytes; nothing, if it is dropped."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(the_socket()))
        client.sendall(data)
        decoder = FrameDecoder()
        try:
            while received := client.recv(1 << 16):
                if frames := decoder.feed(received):
                    return frames
        except ConnectionResetError:
            pass
        return []


def snapshot() -> dict[str, Any]:
    with ControlClient(the_socket(), 20) as client:
        return client.snapshot()


# --- what it shows --------------------------------------------------------------------------------


async def test_it_shows_workers_and_the_calls_that_run_longest() -> None:
    async with watched_pool(size=2) as pool, held_call(pool, session_id="SECRET"):
        await pool.await_ready(20)
        await pool.execute("add", {"x": 1})
        seen = await asyncio.to_thread(snapshot)
        assert (seen["name"], seen["pid"], seen["live"], seen["ready"]) == (
            pool.name, os.getpid(), True, True,
        )  # fmt: skip
        assert seen["stats"] == {**seen["stats"], "running": 1, "succeeded": 1}
        states = {each["worker_id"]: each["state"] for each in seen["workers"]}
        (call,) = seen["calls"]
        assert sorted(states.values()) == ["busy", "idle"]
        assert states[call["worker_id"]] == "busy"
        assert (call["command"], call["state"]) == ("wait_at_gate", "running")
        assert call["running_s"] > 0
        assert "SECRET" not in json.dumps(seen), "neither arguments nor sessions"


async def test_it_tells_the_stacks_of_a_worker() -> None:
    async with watched_pool() as pool, held_call(pool):
        with ControlClient(the_socket(), 20) as client:
            worker_id = pool.workers()[0].worker_id
            assert "in wait_at_gate" in await asyncio.to_thread(client.stacks, worker_id)
            with pytest.raises(ConfigurationError, match="no worker 'nobody'"):
                await asyncio.to_thread(client.stacks, "nobody")


async def test_nothing_but_looking_can_be_asked_for() -> None:
    async with watched_pool(inline=True):
        (frame,) = await asyncio.to_thread(answer_to, request_frame(7, "recycle", "watched-1"))
        assert frame.call_id == 7
        with pytest.raises(UnknownCommand, match="known commands: snapshot, stacks"):
            read_answer(frame)


@pytest.mark.parametrize("value", [None, "0"])
async def test_without_being_asked_for_there_is_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is None:
        monkeypatch.delenv(CONTROL_VARIABLE)
    else:
        monkeypatch.setenv(CONTROL_VARIABLE, value)
    async with watched_pool(inline=True):
        assert find_sockets() == []


# --- whom it lets in ------------------------------------------------------------------------------


async def test_its_folder_is_its_users_alone() -> None:
    async with watched_pool(inline=True):
        assert stat.S_IMODE(the_socket().parent.stat().st_mode) == 0o700


async def test_in_a_folder_that_others_can_enter_there_is_none(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("snakepit", f"snakepit-{os.geteuid()}"):
        (folder / name).mkdir()
        (folder / name).chmod(0o755)
    async with watched_pool(inline=True) as pool:
        assert await pool.execute("add", {"x": 1}) == 2
        assert find_sockets() == []
    assert "is open to others" in caplog.text


async def test_where_the_first_folder_cannot_be_had_the_second_is_taken(folder: Path) -> None:
    (folder / "snakepit").write_text("in the way")
    async with watched_pool(inline=True):
        assert the_socket().parent.name == f"snakepit-{os.geteuid()}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_turned_away_even_if_the_folder_lets_him_in() -> None:
    code = (
        "import os, socket, sys; os.setuid(65534); c = socket.socket(socket.AF_UNIX); "
        "c.connect(sys.argv[1]); print(c.recv(1))"
    )
    async with watched_pool(inline=True):
        path = the_socket()
        opened = [path, *list(path.parents)[:-1]]
        modes = {each: stat.S_IMODE(each.stat().st_mode) for each in opened}
        try:
            for each in opened:
                each.chmod(modes[each] | 0o777)
            command = [sys.executable, "-c", code, str(path)]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=20
            )
        finally:
            for each, mode in modes.items():
                each.chmod(mode)
    assert done.stdout == "b''\n", done.stderr


# --- that nobody can hurt the pool ----------------------------------------------------------------


async def test_who_breaks_the_protocol_is_dropped() -> None:
    broken = [
        b"GET / HTTP/1.1\r\n\r\n",
        encode_frame(FrameType.CALL, 1, bytes(MAX_REQUEST_BYTES + 1)),
        encode_frame(FrameType.CALL, 1, b"\xc1"),
        encode_frame(FrameType.CALL, 1, b"\x93\x01\x02\x03"),
        encode_frame(FrameType.SHUTDOWN, 0, b""),
        request_frame(1, SNAPSHOT, None) * 2,
    ]
    async with watched_pool(inline=True) as pool:
        for data in broken:
            assert await asyncio.to_thread(answer_to, data) == [], data
        assert (await asyncio.to_thread(snapshot))["name"] == pool.name


async def test_a_client_that_does_not_go_on_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.05)
    async with watched_pool(inline=True):
        assert await asyncio.to_thread(answer_to, request_frame(1, SNAPSHOT, None)[:9]) == []


async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.05)
    monkeypatch.setattr(server, "_PAUSE", 0.0)
    # Its answers are more than a socket takes at once.
    async with watched_pool(inline=True, name="x" * (1 << 20)):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(the_socket()))
            client.sendall(request_frame(1, SNAPSHOT, None))
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(read_slowly_to_the_end, client)


def read_slowly_to_the_end(client: socket.socket) -> None:
    """Find out that the peer has gone without taking anything of what it has sent."""
    client.settimeout(20)

    def is_gone() -> bool:
        client.sendall(b"\0")  # fails once the other end is closed
        return False

    wait_until(is_gone, "the client is dropped")


async def test_only_a_few_are_served_at_a_time() -> None:
    async with watched_pool(inline=True):
        clients = [ControlClient(the_socket(), 20) for _ in range(5)]
        try:
            served = [await asyncio.to_thread(tells, client) for client in clients]
        finally:
            for client in clients:
                client.close()
        assert served == [True] * 4 + [False]

        await asyncio.to_thread(wait_until, tells_once, "there is room again")


def tells(client: ControlClient) -> bool:
    try:
        return bool(client.snapshot())
    except ConnectionError:
        return False


def tells_once() -> bool:
    with ControlClient(the_socket(), 20) as client:
        return tells(client)


async def test_closing_does_not_wait_for_clients() -> None:
    async with watched_pool(inline=True):
        client = ControlClient(the_socket(), 20)
        await asyncio.to_thread(client.snapshot)
    with client, pytest.raises(ConnectionError):
        client.snapshot()


async def test_a_blocked_event_loop_gives_no_answer() -> None:
    async with watched_pool(inline=True):
        with ControlClient(the_socket(), 0.01) as client, pytest.raises(TimeoutError):
            client.snapshot()


def test_an_answer_that_is_none_is_told() -> None:
    with pytest.raises(ProtocolError, match="answered with a frame of type 33"):
        read_answer(Frame(FrameType.PING, 0, 1, b""))


# --- what is left ---------------------------------------------------------------------------------


async def test_the_socket_of_a_killed_host_is_removed_by_the_next_pool(folder: Path) -> None:
    run_and_kill_host()
    (left,) = sockets_below(folder)
    os.utime(left)
    assert sweep_sockets() == [], "who is so young may be about to listen"
    make_old(left)
    assert sweep_sockets(dry_run=True) == [left]
    async with watched_pool(inline=True):
        assert the_socket() != left


def run_and_kill_host() -> None:
    paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", HOST],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as host:
        try:
            assert host.stdout is not None
            assert host.stdout.readline() == "open\n"
            assert sweep_sockets() == [], "it is in use"
        finally:
            host.send_signal(signal.SIGKILL)


def test_a_living_socket_is_left_alone_whatever_its_age() -> None:
    listening = bind_socket()
    try:
        make_old(the_socket())
        assert sweep_sockets() == []
    finally:
        remove_socket(listening)
        listening.close()
