"""The places of tools that have a limit: who has one, and who waits for one."""

from __future__ import annotations

import asyncio

from snakepit.calls.nesting import Chain, LocalCall, current_chain, held_here
from snakepit_grpc_bridge.errors import ToolDeadlock

__all__ = ["Places", "Waits"]


class Places:
    """Those of one tool: as many calls of it run at a time as there are places."""

    def __init__(self, tool: str, count: int) -> None:
        self.tool = tool
        self.count = count
        self.turns = asyncio.Semaphore(count)
        self.holders: set[LocalCall] = set()

    def take(self, call: LocalCall) -> None:
        """It is the turn of a call."""
        self.holders.add(call)
        call.holds = self

    def give_back(self, call: LocalCall) -> None:
        """A call has ended, and leaves its place to the next one."""
        call.holds = None
        self.holders.discard(call)
        self.turns.release()


class Waits:
    """Those who wait for a place while they have one themselves, of all tools of a host."""

    def __init__(self) -> None:
        self._waiting: dict[LocalCall, tuple[Places, Chain]] = {}

    async def turn(self, places: Places, call: LocalCall) -> None:
        """Wait until a place is free, which is the call's then.

        Raises:
            ToolDeadlock: none ever would be: whoever has one waits for this call to end.
        """
        # Nobody waits for the end of a call that is in no place: most times this is all.
        if not places.turns.locked() or not held_here():
            await places.turns.acquire()
            return
        self._waiting[call] = places, current_chain()
        try:
            stuck = self._stuck()
            if places in stuck:
                raise _deadlock(places.tool, sorted(each.tool for each in stuck))
            await places.turns.acquire()
        finally:
            del self._waiting[call]

    def _stuck(self) -> set[Places]:
        """The places of which none comes free: in each is a call that waits, itself or what it is
        waiting for, for another of them.
        """
        waits = self._waiting.values()
        stuck = {places for places, _ in waits}
        while True:
            waiting = {call for places, chain in waits if places in stuck for call in chain}
            moving = {
                places
                for places in stuck
                if len(places.holders) < places.count or not places.holders <= waiting
            }
            if not moving:
                return stuck
            stuck -= moving


def _deadlock(tool: str, tools: list[str]) -> ToolDeadlock:
    return ToolDeadlock(
        f"the tool {tool!r} can't be called here, it did not run: whoever has its places waits for "
        f"the end of this very call ({', '.join(map(repr, tools))}); let the tools call each other "
        "in one direction only, or give them a higher concurrency",
        details={"tool": tool, "tools": tools},
    )
