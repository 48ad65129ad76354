"""Calls that kill the workers they are sent to are not sent any more. Pure: it takes `now`.

A call is recognized by its command and its idempotency key, or else the digest of its arguments.
Digests are made only of calls that ran when a worker crashed and, while any of those is remembered,
of further calls of their commands: where nothing crashes it costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from snakepit.calls.call import Call
from snakepit.errors import PoisonCall, WorkerError
from snakepit.options import whole_number
from snakepit.wire.codec import fingerprint

#: Crashes after which a call is refused, by default.
DEFAULT_LIMIT: Final = 2
#: Seconds for which it is refused, and a crash is remembered.
MEMORY: Final = 600.0
#: Calls that are remembered; the one whose last crash is longest ago is forgotten.
MOST_SUSPECTS: Final = 64

_Key = tuple[str, str | bytes]


@dataclass(slots=True)
class _Suspect:
    """A call that ran when workers crashed. ``until`` is when that is forgotten."""

    until: float
    error: WorkerError
    crashes: int
    blame: Fraction


class Quarantine:
    """The calls of one pool that are under suspicion, and those that are refused.

    Nobody can tell which of the calls that ran in a worker killed it, so a crash is shared among
    them: a call is refused when its shares make ``limit`` crashes. One that succeeds is cleared.
    None of ``limit`` refuses nothing.

    Raises:
        ConfigurationError: ``limit`` is no whole number of at least 1.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = None if limit is None else whole_number("quarantine_after", limit)
        #: Empty nearly always, which spares a pool any further look.
        self.suspects: OrderedDict[_Key, _Suspect] = OrderedDict()

    def record_crash(self, calls: Sequence[Call], error: WorkerError, now: float) -> list[str]:
        """Note that a worker crashed while it ran ``calls``; return the commands of those that are
        refused from now on.
        """
        if self._limit is None:
            return []
        self._forget_old(now)
        waiting = {call.parent_id for call in calls}
        ran = [call for call in calls if call.wire_id not in waiting]
        keys = {key for call in ran if (key := _key(call)) is not None}
        refused = []
        for key in keys:
            before = self.suspects.pop(key, None)
            suspect = _Suspect(now + MEMORY, error, 1, Fraction(1, len(ran)))
            if before is not None:
                suspect.crashes += before.crashes
                suspect.blame += before.blame
            self.suspects[key] = suspect
            if suspect.blame >= self._limit:
                refused.append(key[0])
        while len(self.suspects) > MOST_SUSPECTS:
            self.suspects.popitem(last=False)
        return refused

    def require_harmless(self, call: Call, now: float) -> None:
        """Let a call pass that may be sent to a worker.

        Raises:
            PoisonCall: it has killed too many.
        """
        self._forget_old(now)
        key = self._key_of(call)
        suspect = None if key is None else self.suspects.get(key)
        if suspect is None or self._limit is None or suspect.blame < self._limit:
            return
        raise PoisonCall.of(
            call.command,
            crashes=suspect.crashes,
            refused_s=suspect.until - now,
            has_key=call.idempotency_key is not None,
        ) from suspect.error

    def suspects_call(self, call: Call) -> bool:
        """Whether a call ran when a worker crashed."""
        key = self._key_of(call)
        return key is not None and key in self.suspects

    def acquit(self, call: Call) -> None:
        """Note that a call has succeeded: it kills nobody."""
        key = self._key_of(call)
        if key is not None:
            self.suspects.pop(key, None)

    def clear(self) -> None:
        """Forget all: the code is another."""
        self.suspects.clear()

    def _key_of(self, call: Call) -> _Key | None:
        """By what a call would be found; None if it can't be there."""
        if all(command != call.command for command, _ in self.suspects):
            return None
        return _key(call)

    def _forget_old(self, now: float) -> None:
        while self.suspects and next(iter(self.suspects.values())).until <= now:
            self.suspects.popitem(last=False)


def _key(call: Call) -> _Key | None:
    if call.idempotency_key is not None:
        return call.command, call.idempotency_key
    digest = fingerprint([dict(call.args)])
    return None if digest is None else (call.command, digest)
