"""Work that tests do again and again, in all the ways in which a platform writes, while its storage
fails and comes back; and what must be true of it afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from snakepit.errors import SnakepitError
from snakepit.testing import until
from snakepit_grpc_bridge import Platform
from snakepit_grpc_bridge.errors import OutcomeUnknown, ToolExecutionFailed

#: Seconds in which each kind of work has to fail, or to succeed again.
PATIENCE = 40.0


class Work:
    """Something that is done again and again, until it is stopped, and how each time ended.

    Attributes:
        done: the numbers of the times that were good.
        failed: the errors of the others, by number.
    """

    def __init__(self, once: Callable[[int], Awaitable[object]]) -> None:
        self.done: list[int] = []
        self.failed: dict[int, SnakepitError] = {}
        self._once = once
        self._over = False
        self._task = asyncio.create_task(self._go_on())

    async def _go_on(self) -> None:
        for number in itertools.count(1):
            if self._over:
                return
            try:
                await self._once(number)
            except SnakepitError as error:
                self.failed[number] = error
            else:
                self.done.append(number)

    async def stop(self) -> None:
        self._over = True
        await self._task

    def unknown(self) -> set[int]:
        """The times of which nobody was told how they ended."""
        return {
            number
            for number, error in self.failed.items()
            if isinstance(reason_of(error), OutcomeUnknown)
        }


def reason_of(error: SnakepitError) -> BaseException | None:
    """What the storage has said, also to a tool that failed because of it."""
    return error.__cause__ if isinstance(error, ToolExecutionFailed) else error


class EndlessWork:
    """All kinds of work on one session of a platform, each by a task of its own."""

    def __init__(self, platform: Platform, session_id: str, value: Callable[[int], Any]) -> None:
        self._platform = platform
        self._session_id = session_id
        self._value = value
        self.kinds = {
            "by_host": Work(self._by_host),
            "by_worker": Work(self._by_worker),
            "by_tool": Work(self._by_tool),
            "both": Work(self._in_transaction),
            "session": Work(self._session),
            "call": Work(self._call_without_session),
            "sweep": Work(lambda _: platform.sessions.sweep()),
        }

    @classmethod
    async def start(
        cls,
        platform: Platform,
        session_id: str = "s",
        *,
        value: Callable[[int], Any] = lambda number: number,
    ) -> EndlessWork:
        """Begin, and wait until each has been done; ``value`` is written the nth time."""
        await platform.sessions.start(session_id, concurrency=10)

        async def note(number: int) -> None:
            await platform.variables.put(session_id, "by_tool", value(number))

        await platform.tools.register("note", note, session_id=session_id)
        work = cls(platform, session_id, value)
        await work.is_done()
        return work

    def _by_host(self, number: int) -> Awaitable[object]:
        return self._platform.variables.put(self._session_id, "by_host", self._value(number))

    def _by_worker(self, number: int) -> Awaitable[object]:
        return self._call("state_programs.write", "by_worker", self._value(number))

    def _by_tool(self, number: int) -> Awaitable[object]:
        """A worker calls a tool of the host, which writes."""
        return self._call("state_programs.call", "note", {"number": number})

    def _call(self, path: str, *args: Any) -> Awaitable[object]:
        return self._platform.python.call(path, args, session_id=self._session_id)

    async def _in_transaction(self, number: int) -> None:
        async with self._platform.variables.transaction(self._session_id) as tx:
            await tx.get("both", None)
            tx.set("both", self._value(number))
            tx.set("and_this", self._value(number))

    async def _session(self, number: int) -> None:
        async with self._platform.sessions.open(f"session-{number}") as session:
            await self._platform.variables.put(session.id, "held", number)

    async def _call_without_session(self, number: int) -> None:
        await self._platform.python.call("state_programs.write", ["mine", self._value(number)])

    async def is_done(self) -> None:
        """Wait until each kind has been done once more."""
        await self._once_more(lambda work: work.done, self.kinds, "is done")

    async def fails(self, kinds: Iterable[str] | None = None) -> None:
        """Wait until each kind, or each of these, has failed once more."""
        await self._once_more(lambda work: work.failed, kinds or self.kinds, "fails")

    async def _once_more(
        self, counted: Callable[[Work], Any], kinds: Iterable[str], what: str
    ) -> None:
        before = {kind: len(counted(self.kinds[kind])) for kind in kinds}

        def waits_for() -> list[str]:
            return [k for k, count in before.items() if len(counted(self.kinds[k])) == count]

        try:
            await until(lambda: not waits_for(), f"each {what}", PATIENCE)
        except TimeoutError as error:
            raise AssertionError(f"never {what}: {waits_for()}") from error

    async def stop(self) -> None:
        for work in self.kinds.values():
            await work.stop()

    def reasons(self) -> Sequence[BaseException | None]:
        """What the storage has said, all in all."""
        return [reason_of(each) for work in self.kinds.values() for each in work.failed.values()]

    async def check(self, platform: Platform | None = None) -> None:
        """What was acknowledged is there, what failed is not, and nothing is there by half; also
        for another platform that sees the same storage.
        """
        platform = platform or self._platform
        variables = platform.variables
        for name in ("by_host", "by_worker", "by_tool", "both"):
            work, unknown = self.kinds[name], self.kinds[name].unknown()
            record = await variables.get_variable(self._session_id, name)
            possible = [work.done[-1], *(n for n in unknown if n > work.done[-1])]
            assert record.value in [self._value(number) for number in possible], name
            written = record.version + 1
            assert len(work.done) <= written <= len(work.done) + len(unknown), name
        both = await variables.get_variable(self._session_id, "both")
        and_this = await variables.get_variable(self._session_id, "and_this")
        assert (both.value, both.version) == (and_this.value, and_this.version)
        left = {session.id for session in await platform.sessions.list()}
        may_be_left = {f"session-{number}" for number in self.kinds["session"].failed}
        temporary = {each for each in left if each.startswith("temp_session_")}
        assert left - may_be_left - temporary == {"global", self._session_id}
        assert len(temporary) <= len(self.reasons())
