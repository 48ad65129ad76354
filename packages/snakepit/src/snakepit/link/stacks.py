"""What the threads of one worker do: it is asked, and looked into if it does not answer."""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

from snakepit.errors import ProtocolError
from snakepit.link.control import ControlConnection
from snakepit.link.handshake import Hello
from snakepit.processes.stacks import StacksUnavailable, dump_stacks
from snakepit.processes.vitals import Vitals, read_vitals
from snakepit.wire.frames import Frame, FrameType
from snakepit.wire.messages import read_body, value_frame

# Seconds that a worker may take to answer, and more for each call that may run there: its threads
# take turns at running Python code. One that does is not to be looked into. An event loop that
# spins gives up the interpreter's lock and takes it again so often that a thread which waits for it
# has been seen to get it only after half a second.
_ANSWER_SECONDS: Final = 1.0
_ANSWER_SECONDS_OF_A_CALL: Final = 0.2
_MOST_ANSWER_SECONDS: Final = 7.0
# They are counted in looks: what both sides slept through, as a machine that was paused, is one.
_LOOK_SECONDS: Final = 0.1
# One that is short of processors is looked at so many times as often.
_STARVED: Final = 4


class Stacks:
    """The questions to one worker that have no answer yet."""

    def __init__(self, control: ControlConnection, concurrency: int) -> None:
        self._control = control
        patience = _ANSWER_SECONDS + concurrency * _ANSWER_SECONDS_OF_A_CALL
        self._looks = round(min(patience, _MOST_ANSWER_SECONDS) / _LOOK_SECONDS)
        self._tokens = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[str]] = {}
        # All dumps by the signal share one file.
        self._looking = asyncio.Lock()

    async def dump(self, pid: int, hello: Hello, patience: float, *, silent: bool) -> str:
        """The stacks of all threads of the process ``pid``, which has said ``hello``.

        A ``silent`` process has not answered pings either, and is not asked.

        Raises:
            StacksUnavailable: it has no such facility; or it did not answer in time, and then did
                not react to the signal within ``patience`` seconds.
        """
        if hello.tells_stacks and not silent:
            told = await self._ask(pid)
            if told is not None:
                return told
        if not isinstance(hello.stacks, int):
            how = "did not answer in time" if hello.tells_stacks else "can't write its stacks"
            raise StacksUnavailable(f"process {pid} {how}")
        async with self._looking:
            return await dump_stacks(pid, hello.stacks, patience)

    async def _ask(self, pid: int) -> str | None:
        """What it answers; None if it does not in time."""
        token = next(self._tokens)
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[token] = told
        self._control.send(value_frame(FrameType.STACKS, 0, token))
        try:
            before, looks = read_vitals(pid), 0
            for _ in range(self._looks * _STARVED):
                await asyncio.wait([told], timeout=_LOOK_SECONDS)
                if told.done():
                    return told.result()
                now = read_vitals(pid)
                looks += _had_time(before, now)
                if looks >= self._looks:
                    break
                before = now
            return None
        finally:
            del self._waiting[token]

    def answered(self, frame: Frame) -> None:
        """An answer has come; one that nobody waits for any more is dropped.

        Raises:
            ProtocolError, DecodeError: it is malformed.
        """
        token, stacks = read_body(frame, 2)
        if not isinstance(stacks, str):
            raise ProtocolError(f"stacks are a text, not a {type(stacks).__name__}")
        told = self._waiting.get(token) if isinstance(token, int) else None
        if told is not None and not told.done():
            told.set_result(stacks)

    def end_all(self) -> None:
        """No answer will come any more."""
        for told in self._waiting.values():
            if not told.done():
                told.set_exception(StacksUnavailable("the process has ended"))


def _had_time(before: Vitals | None, now: Vitals | None) -> bool:
    """Whether a process that did not answer has run meanwhile, or did not want to."""
    if before is None or now is None:
        return True
    return now.cpu_ticks > before.cpu_ticks or "R" not in now.states
