"""A worker written from PROTOCOL.md alone, on the standard library and msgpack: the least that a
pool needs, and ways to be none. The first argument says which.

It runs one call at a time, offers no feature, and ignores the control channel but for PING.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
from typing import Any

import msgpack

HEADER = struct.Struct("<IBBHQ")
HELLO, WELCOME, READY, SHUTDOWN, CALL, RESULT, PING, PONG = 1, 2, 3, 5, 16, 17, 33, 34
COMMANDS = {name: {"stream": False} for name in ("echo", "config", "facts", "burn", "daemon")}


def send(sock: socket.socket, kind: int, call_id: int, *elements: Any) -> None:
    body = msgpack.packb(elements)
    sock.sendall(HEADER.pack(len(body), kind, 0, 0, call_id) + body)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size, socket.MSG_WAITALL) if size else b""
    if len(data) < size:
        sys.exit(0)  # the host is gone
    return data


def receive(sock: socket.socket) -> tuple[int, int, Any]:
    size, kind, _, _, call_id = HEADER.unpack(read_exactly(sock, HEADER.size))
    return kind, call_id, msgpack.unpackb(read_exactly(sock, size), strict_map_key=False)


def serve(data: socket.socket, control: socket.socket) -> None:
    send(data, HELLO, 0, [1], os.getpid(), {"language": "python, by hand"})
    _, _, (_, welcome) = receive(data)
    send(data, READY, 0, COMMANDS)
    while True:
        ready, _, _ = select.select([data, control], [], [])
        if control in ready:
            kind, _, body = receive(control)
            if kind == PING:
                send(control, PONG, 0, body[0])
        if data in ready:
            kind, call_id, body = receive(data)
            if kind == SHUTDOWN:
                return
            send(data, RESULT, call_id, run(body[0], body[1], welcome))


def run(command: str, args: dict[str, Any], welcome: dict[str, Any]) -> Any:
    match command:
        case "echo":
            # What came behind this call waits in the socket: a host that sends ahead is caught.
            waiting = select.select([3], [], [], 0.002)[0] if args.get("look") else []
            return [args["value"], bool(waiting)]
        case "config":
            return welcome
        case "facts":
            fds = [int(name) for name in os.listdir("/proc/self/fd")]
            return {"cwd": os.getcwd(), "env": dict(os.environ), "fds": sorted(fds)}
        case "burn":
            while True:
                pass
        case "daemon":
            return os.spawnlp(os.P_NOWAIT, "setsid", "setsid", "sleep", "60")
    raise LookupError(command)


def main(way: str) -> None:
    data, control = socket.socket(fileno=3), socket.socket(fileno=4)
    match way:
        case "serves":
            serve(data, control)
        case "exits":
            print("no licence found")
            sys.exit(3)
        case "says nothing":
            print("waiting for input", flush=True)
            signal.pause()
        case "greets and waits":
            send(data, HELLO, 0, [1], os.getpid(), {})
            signal.pause()
        case "prints its frames":
            os.write(1, HEADER.pack(2, HELLO, 0, 0, 0) + b"\x91\x01")
            signal.pause()
        case "writes garbage":
            data.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            signal.pause()
        case "speaks version 2":
            send(data, HELLO, 0, [2], os.getpid(), {})
            signal.pause()
        case "has odd versions":
            send(data, HELLO, 0, [[1], {"a": 1}], os.getpid(), {})
            signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
