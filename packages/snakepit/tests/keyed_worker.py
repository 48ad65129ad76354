"""Commands that look at their call's idempotency key."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import snakepit
from snakepit import Batch


class Keyed:
    @snakepit.command
    def key(self) -> str | None:
        return snakepit.current_call().idempotency_key

    @snakepit.command
    def keys(self) -> Iterator[str | None]:
        yield snakepit.current_call().idempotency_key

    @snakepit.command(batch=Batch(max_size=4))
    def batch_keys(self, row: list[int]) -> list[str | None]:
        return [snakepit.current_call().idempotency_key for _ in row]

    @snakepit.command
    def die(self, at: float) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()

    @snakepit.command
    def die_once(self, path: str) -> str | None:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return snakepit.current_call().idempotency_key
        os.kill(os.getpid(), signal.SIGKILL)
        return None
