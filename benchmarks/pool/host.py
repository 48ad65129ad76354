"""The host process of one contender: `python -m benchmarks.pool.host NAME MODE DESCRIPTOR`.

Reads requests and writes answers, a JSON object a line, on a socket of its own: what libraries
print does not get between.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

from benchmarks.pool.contenders import create
from benchmarks.pool.measures import MEASURES, Effort
from benchmarks.pool.session import Session


async def serve(name: str, mode: str, channel: socket.socket) -> None:
    """Answer requests until the runner says that it was the last, or is gone."""
    reader, writer = await asyncio.open_connection(sock=channel)
    try:
        session = Session(create(name), mode)
    except ImportError as error:
        await _answer(writer, {"error": f"{name} is not installed: {error}"})
        return
    await _answer(writer, {"ready": True})
    try:
        while line := await reader.readline():
            request = json.loads(line)
            if request["measure"] == "close":
                break
            await _answer(writer, await _measure(session, request))
    finally:
        await session.close()


async def _measure(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    try:
        figures = await MEASURES[request["measure"]](session, Effort(**request["effort"]))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"figures": figures}


async def _answer(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], socket.socket(fileno=int(sys.argv[3]))))
