"""The event loop beside a worker's main thread."""

from __future__ import annotations

import asyncio


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of the calling thread, if one runs there."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run ``loop`` until it is stopped."""
    while True:
        try:
            loop.run_forever()
            return
        except (SystemExit, KeyboardInterrupt):
            # asyncio stores them in the task that raised them, then lets them through; here they
            # end the call, not the loop.
            continue
