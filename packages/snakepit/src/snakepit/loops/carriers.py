"""Coroutines that start at once, and not in a later turn of the event loop as new tasks do.

Waiting for that turn takes longer than many a coroutine does. So a task is kept that waits for
work, and goes on as soon as what came with one read has been handled; see
:mod:`snakepit.loops.wakeups`. A coroutine sees what it would see in a new task: a task that is its
own while it runs, to be cancelled and timed, and a context of its own.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from snakepit.loops.waiting import Waiting
from snakepit.loops.wakeups import WakeUps

__all__ = ["Carrier", "Carriers"]

Work = Coroutine[Any, Any, None]


class Carriers:
    """The tasks that run the coroutines of one owner. For one event loop.

    While nothing runs one of them waits for work, from the beginning to ``close``.
    """

    def __init__(self) -> None:
        self._is_closed = False
        self._idle: Carrier | None = Carrier(self)

    def start(self, work: Work, ended: Callable[[], None], wakeups: WakeUps | None) -> Carrier:
        """Run ``work``, then call ``ended``: also if the work was stopped before it began.

        What is returned can be stopped until then.
        """
        carrier = self._idle or Carrier(self)
        self._idle = None
        carrier.load(work, ended, wakeups)
        return carrier

    def keep(self, carrier: Carrier) -> bool:
        """Have a carrier wait for more work; False if it is not needed."""
        if self._is_closed or self._idle not in (None, carrier):
            return False
        self._idle = carrier
        return True

    def ended(self, carrier: Carrier, *, was_cancelled: bool) -> None:
        """A carrier has ended. One that was cancelled is not replaced before there is work: perhaps
        the whole loop comes to its end.
        """
        if self._idle is carrier:
            self._idle = None
        if self._idle is None and not self._is_closed and not was_cancelled:
            self._idle = Carrier(self)

    def close(self) -> None:
        """Keep no carrier any more. What runs goes on."""
        self._is_closed = True
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.stop()


class Carrier(Waiting):
    """A task that runs one coroutine after the other; also what that task waits for in between."""

    __slots__ = ("_ended", "_owner", "_task", "_work")

    def __init__(self, owner: Carriers) -> None:
        super().__init__()
        self._owner = owner
        self._work: Work | None = None
        self._ended: Callable[[], None] = _nothing
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(self._task_done)

    def load(self, work: Work, ended: Callable[[], None], wakeups: WakeUps | None) -> None:
        """Take the next coroutine, while there is none."""
        self._work = work
        self._ended = ended
        if self._waiter is None:
            return  # the task is new, and begins by itself
        if wakeups is None:
            asyncio.get_running_loop().call_soon(self.wake)
        else:
            wakeups.add(self)

    def stop(self) -> None:
        """Cancel the coroutine, or see to it that it does not begin."""
        if self._work is None:
            self._task.cancel()
        else:
            self._drop()

    def _drop(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.close()
            self._ended()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._owner.ended(self, was_cancelled=task.cancelling() > 0)
        self._drop()  # whoever cancels all tasks of a loop may come before the first step

    async def _run(self) -> None:
        is_spent = False
        while not is_spent:
            if self._work is None:
                if not self._owner.keep(self):
                    return
                await self
            work, self._work = self._work, None
            if work is None:
                continue
            run = contextvars.copy_context().run
            try:
                # Others may know the task of a coroutine that has waited.
                await _Rest(work, run, run(work.send, None))
                is_spent = True
            except StopIteration:  # it has not
                is_spent = self._task.cancelling() > 0
            finally:
                self._ended()


class _Rest:
    """What is left of a coroutine that waits for something."""

    def __init__(self, work: Work, run: Callable[..., Any], awaited: Any) -> None:
        self._work = work
        self._run = run
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        work, run, awaited = self._work, self._run, self._awaited
        try:
            while True:
                try:
                    sent = yield awaited
                except GeneratorExit:
                    run(work.close)
                    raise
                except BaseException as error:
                    awaited = run(work.throw, error)
                else:
                    awaited = run(work.send, sent)
        except StopIteration:
            pass


def _nothing() -> None:
    pass
