"""Looking for what a pool's only busy worker says next, before the event loop sleeps.

To be woken takes longer than a short call. So while just one call runs, the host reads from its
worker again and again for a moment, as :mod:`snakepit.loops.spin` advises: in the caller's task
after the call was sent, and in the event loop each time the host has answered what the worker asked
of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sized
from typing import Protocol

from snakepit.calls.call import Call
from snakepit.loops.spin import AdaptiveSpin
from snakepit.loops.wakeups import WakeUps

# How often in a row something may be found without a turn of the event loop, so that looking
# starves nobody.
_FINDS_A_TURN = 8


class Polled(Protocol):
    """A worker that can be asked whether it has said something."""

    def poll(self) -> bool:
        """Handle what it has said, if anything; whether there was something."""


class Looking:
    """That of one pool; ``running`` are its calls, ``limit`` is in seconds, 0 for never."""

    def __init__(self, limit: float, running: Sized, wakeups: WakeUps) -> None:
        self._spin = AdaptiveSpin(limit)
        self._limit = limit
        self._running = running
        self._wakeups = wakeups
        self._finds_left = _FINDS_A_TURN
        # Who was given an answer and will say something.
        self._answered: Polled | None = None
        self._is_due = False

    def for_answer(self, worker: Polled, call: Call) -> None:
        """Look for the answer to a call that was just sent. In the caller's task."""
        if not self._is_alone() or not self._may_look():
            return
        give_up_at = time.perf_counter() + self._limit
        while call.outcome is None:
            # At first, too: the worker may have to share this processor.
            os.sched_yield()
            if worker.poll():
                if call.outcome is None:
                    return  # it calls the host, or streams: the loop has something to do
            # Not the clock of deadlines: a test may hold that one still.
            elif time.perf_counter() > give_up_at:
                break
        self._spin.record(found=call.outcome is not None)

    def after_answering(self, worker: Polled) -> None:
        """Look for what a worker says that has the answers to all that it has asked of the host."""
        if not self._is_alone():
            return
        # Not always the running one: an answer is also that a task ends with its loop.
        loop = self._wakeups.loop or asyncio.get_running_loop()
        if loop.is_closed():
            return
        self._answered = worker
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._look)

    def _look(self) -> None:
        """Outside of any task, so that what is found can be handled at once."""
        try:
            while (worker := self._answered) is not None and self._may_look():
                self._answered = None
                self._look_at(worker)
        finally:
            self._is_due = False
            self._answered = None

    def _look_at(self, worker: Polled) -> None:
        give_up_at = time.perf_counter() + self._limit
        found = late = False
        self._wakeups.at_once = True
        try:
            while not found and not late:
                os.sched_yield()
                found = worker.poll()
                late = time.perf_counter() > give_up_at
        finally:
            self._wakeups.wake()
        self._spin.record(found=found)

    def _is_alone(self) -> bool:
        return self._limit > 0.0 and len(self._running) == 1

    def _may_look(self) -> bool:
        if not self._finds_left or not self._spin.is_worthwhile():
            return False
        if self._finds_left == _FINDS_A_TURN:
            asyncio.get_running_loop().call_soon(self._on_turn)
        self._finds_left -= 1
        return True

    def _on_turn(self) -> None:
        self._finds_left = _FINDS_A_TURN
