"""The engine of local models, in a real pool with the embedded model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import snakepit
from snakepit.errors import CallTimeout
from snakepit_grpc_bridge.lm.catalog import resolve
from snakepit_grpc_bridge.lm.errors import LmCallFailed, ModelUnreadable
from snakepit_grpc_bridge.lm.install import require_embedded
from snakepit_grpc_bridge.lm.service import LmService, LmSettings

pytestmark = [pytest.mark.model, pytest.mark.slow]


@asynccontextmanager
async def running() -> AsyncIterator[snakepit.Pool]:
    service = LmService(LmSettings(model=resolve("embedded")))
    await service.start()
    try:
        assert service.pool is not None
        yield service.pool
    finally:
        await service.aclose()


def request(text: str, native: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    if native is not None:
        config["extensions"] = {"native": {"plain": True, **native}}
    message = {"role": "user", "parts": [{"type": "text", "text": text}]}
    return {"request": {"model": "embedded", "messages": [message], "config": config}}


def text_of(response: dict[str, Any]) -> str:
    return str(response["message"]["parts"][0]["text"])


async def test_answers_streams_scores_and_refusals() -> None:
    async with running() as pool:
        counting = request("1, 2, 3, 4,", {}, max_tokens=8)
        whole = await pool.execute("complete", counting)
        assert text_of(whole).startswith(" 5, 6")
        assert whole["finish_reason"] == "length"
        assert whole["usage"]["output_tokens"] == 8

        events = [event async for event in pool.execute_stream("stream", counting)]
        assert [event["type"] for event in events[:1] + events[-1:]] == ["start", "end"]
        assert "".join(e["delta"]["text"] for e in events[1:-1]) == text_of(whole)
        assert events[-1]["usage"]["output_tokens"] == 8

        chat = await pool.execute("complete", request("Say hello.", max_tokens=4))
        assert text_of(chat)

        score = {"choices": [" Paris", " London", " a very long way"], "baselines": [""]}
        scored = await pool.execute(
            "complete", request("The capital of France is", {"score": score})
        )
        assert scored["provider_data"]["choice"] == 0
        assert scored["provider_data"]["scores"][0] == max(scored["provider_data"]["scores"])

        digits = await pool.execute("complete", request("Say:", {"grammar": 'root ::= "12"'}))
        assert text_of(digits) == "12"

        for wrong, kind in (
            (request("word " * 5000, {}), "context_length"),
            (request("Say:", {"grammar": "root ::= ("}), "invalid_request"),
        ):
            with pytest.raises(LmCallFailed) as caught:
                await pool.execute("complete", wrong)
            assert caught.value.kind == kind


async def test_a_deadline_stops_the_generation_and_keeps_the_worker() -> None:
    async with running() as pool:
        before = [worker.pid for worker in pool.workers()]
        with pytest.raises(CallTimeout):
            await pool.execute("complete", request("Once", {}, max_tokens=3000), timeout=0.4)
        answer = await pool.execute("complete", request("1, 2, 3,", {}, max_tokens=3))
        assert text_of(answer).startswith(" 4")
        async for event in pool.execute_stream("stream", request("Once", {}, max_tokens=3000)):
            if event["type"] == "delta":
                break
        answer = await pool.execute("complete", request("1, 2, 3,", {}, max_tokens=3))
        assert text_of(answer).startswith(" 4")
        assert [worker.pid for worker in pool.workers()] == before


async def test_nothing_listens_and_no_key_arrives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this-process")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with running() as pool:
        pid = pool.workers()[0].pid
        await pool.execute("complete", request("1, 2,", {}, max_tokens=2))
        assert os.listdir(tmp_path) == []
        assert listening_sockets(pid) == []
        assert b"sk-not-for-this-process" not in read(f"/proc/{pid}/environ")
        # Local models need no DSPy, which would cost their process a second.
        assert b"/dspy/" not in read(f"/proc/{pid}/maps")


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def listening_sockets(pid: int | None) -> list[str]:
    """Return what process `pid` holds in the tables of TCP and UDP sockets."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link.removeprefix("socket:[")[:-1] for link in links if link.startswith("socket:")}
    lines = [
        line
        for table in ("tcp", "tcp6", "udp", "udp6")
        for line in read(f"/proc/{pid}/net/{table}").decode().splitlines()[1:]
    ]
    return [line for line in lines if line.split()[9] in inodes]


async def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    with require_embedded().open("rb") as whole:
        path.write_bytes(whole.read(3_000_000))
    service = LmService(LmSettings(model=resolve(f"gguf:{path}")))
    with pytest.raises(ModelUnreadable, match=r"half\.gguf"):
        await service.start()
    await service.aclose()
