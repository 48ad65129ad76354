"""Providers' models: a server on this machine that speaks a provider's protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from snakepit_grpc_bridge import Platform, Settings
from snakepit_grpc_bridge.lm.catalog import resolve
from snakepit_grpc_bridge.lm.errors import LmCallFailed
from snakepit_grpc_bridge.lm.service import LmService, LmSettings

pytestmark = pytest.mark.slow

KEY = "sk-only-for-the-provider"
ANSWER = "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"


class Server(ThreadingHTTPServer):
    """Answers chat completions; refuses those that speak of failure."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, Any]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.headers["Authorization"], body))
        if "please fail" in json.dumps(body["messages"]):
            self._send(401, {"error": {"message": "no such key", "code": "invalid_api_key"}})
        elif body.get("stream"):
            self._send_stream(body["model"])
        else:
            self._send(200, _completion(body["model"], {"message": _message(ANSWER)}))

    def _send(self, status: int, body: dict[str, Any]) -> None:
        self._send_bytes(status, "application/json", json.dumps(body).encode())

    def _send_stream(self, model: str) -> None:
        chunks = [
            _completion(model, {"delta": _message(ANSWER[:20])}, reason=None),
            _completion(model, {"delta": {"content": ANSWER[20:]}}, reason=None),
            _completion(model, {"delta": {}}),
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self._send_bytes(200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode())

    def _send_bytes(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""


def _message(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _completion(model: str, choice: dict[str, Any], reason: str | None = "stop") -> dict[str, Any]:
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": reason, **choice}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_the_key_reaches_the_provider_and_nobody_else(server: Server) -> None:
    settings = Settings(model="openai/test-model", api_base=server.address, workers=1)
    async with Platform(settings) as platform:
        result = await platform.dspy.predict("question -> answer", {"question": "France?"})
        assert result["answer"] == "Paris"
        key, body = server.seen[0]
        assert (key, body["model"]) == (f"Bearer {KEY}", "test-model")
        for worker in platform.pool.workers():
            assert KEY.encode() not in environment_of(worker.pid)

        with pytest.raises(LmCallFailed, match="no such key") as caught:
            await platform.dspy.predict("question -> answer", {"question": "please fail"})
        assert caught.value.kind == "auth"
        assert caught.value.message.endswith("; check the key in OPENAI_API_KEY")
        assert "api_key=" not in caught.value.message
        error: BaseException | None = caught.value
        while error is not None:
            assert KEY not in f"{error} {vars(error)}"
            error = error.__cause__
        # Refused keys are not tried again.
        assert len(server.seen) == 2


async def test_a_missing_key_is_named_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    async with Platform(Settings(model="openai/test-model", workers=1)) as platform:
        with pytest.raises(LmCallFailed) as caught:
            await platform.dspy.predict("question -> answer", {"question": "?"})
    assert caught.value.kind == "configuration"
    assert caught.value.message == (
        "the model 'openai/test-model' failed: no key was found; set OPENAI_API_KEY in the "
        "environment"
    )


def environment_of(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_streams(server: Server) -> None:
    service = LmService(LmSettings(model=resolve("openai/test-model", api_base=server.address)))
    await service.start()
    try:
        assert service.pool is not None
        message = {"role": "user", "parts": [{"type": "text", "text": "France?"}]}
        request = {"model": "openai/test-model", "messages": [message]}
        events = service.pool.execute_stream("stream", {"request": request})
        received = [event async for event in events]
    finally:
        await service.aclose()
    assert [event["type"] for event in received] == ["start", "delta", "delta", "end"]
    assert "".join(event["delta"]["text"] for event in received[1:-1]) == ANSWER
    assert received[-1]["finish_reason"] == "stop"
