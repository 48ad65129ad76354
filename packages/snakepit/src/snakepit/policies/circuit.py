"""When a circuit breaker lets calls pass. Pure: no IO, `now` is an argument.

====================  =================================================  =========
state                 event                                              next
====================  =================================================  =========
CLOSED                so many failures in a row, or a part of the calls  OPEN
OPEN                  a call, after ``open_time``                        HALF_OPEN
HALF_OPEN             all probes succeed                                 CLOSED
HALF_OPEN             a probe fails, or they take longer than            OPEN
                      ``open_time``
====================  =================================================  =========

What ends in another state than it began in is not counted: it says nothing about how things are
now.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

_BUCKETS: Final = 10


class CircuitState(Enum):
    """Whether calls pass."""

    CLOSED = "closed"
    """All calls pass."""
    OPEN = "open"
    """No call passes."""
    HALF_OPEN = "half_open"
    """A few calls pass, as probes."""


class Verdict(Enum):
    """What the end of a call says about whatever serves calls."""

    SUCCESS = "success"
    FAILURE = "failure"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRules:
    """When a circuit opens and closes. Times in seconds; see :class:`CircuitBreaker`."""

    failures: int
    error_rate: float
    least_calls: int
    window: float
    open_time: float
    probes: int


class Circuit:
    """The state of one circuit, and the calls it is decided by."""

    def __init__(self, rules: CircuitRules) -> None:
        self._rules = rules
        self._state = CircuitState.CLOSED
        # Which stay in a state it is. Calls are counted in the one they began in.
        self._era = 0
        self._in_a_row = 0
        self._counts = _Window(rules.window)
        # When an open circuit takes probes, and by when these have to have ended.
        self._until = 0.0
        self._probing = 0
        self._passed = 0

    @property
    def phase(self) -> CircuitState:
        """The state that it has been brought to; see ``state`` for what is due."""
        return self._state

    def state(self, now: float) -> CircuitState:
        """Whether calls would pass."""
        if self._state is CircuitState.OPEN and now >= self._until:
            return CircuitState.HALF_OPEN
        return self._state

    def retry_after(self, now: float) -> float:
        """Seconds until a call may pass that is refused now."""
        return max(0.0, self._until - now)

    def admit(self, now: float) -> int | None:
        """Let a call pass and return its ticket, or None to refuse it."""
        if self._state is CircuitState.CLOSED:
            return self._era
        if now >= self._until:
            if self._state is CircuitState.HALF_OPEN:
                # Probes that never end would keep it half open for ever.
                self._open(now)
                return None
            self._enter(CircuitState.HALF_OPEN)
            self._until = now + self._rules.open_time
        if self._state is CircuitState.OPEN or self._probing + self._passed >= self._rules.probes:
            return None
        self._probing += 1
        return self._era

    def record(self, ticket: int, verdict: Verdict, now: float) -> None:
        """Note the end of a call that passed."""
        if ticket != self._era:
            return
        if self._state is CircuitState.HALF_OPEN:
            self._record_probe(verdict, now)
        elif verdict is not Verdict.NOTHING:
            self._record_call(verdict is Verdict.FAILURE, now)

    def reset(self) -> None:
        """Close the circuit and forget all failures."""
        self._enter(CircuitState.CLOSED)

    def _record_probe(self, verdict: Verdict, now: float) -> None:
        self._probing -= 1
        if verdict is Verdict.FAILURE:
            self._open(now)
        elif verdict is Verdict.SUCCESS:
            self._passed += 1
            if self._passed >= self._rules.probes:
                self._enter(CircuitState.CLOSED)

    def _record_call(self, failed: bool, now: float) -> None:
        self._in_a_row = self._in_a_row + 1 if failed else 0
        calls, failures = self._counts.add(failed, now)
        if not failed:
            return
        rules = self._rules
        too_many = calls >= rules.least_calls and failures >= rules.error_rate * calls
        if self._in_a_row >= rules.failures or too_many:
            self._open(now)

    def _open(self, now: float) -> None:
        self._enter(CircuitState.OPEN)
        self._until = now + self._rules.open_time

    def _enter(self, state: CircuitState) -> None:
        self._state = state
        self._era += 1
        self._in_a_row = self._probing = self._passed = 0
        self._counts = _Window(self._rules.window)


class _Window:
    """Counts calls and failures of the last seconds, in steps of a tenth of them."""

    def __init__(self, seconds: float) -> None:
        self._step = seconds / _BUCKETS
        # Step, calls, failures.
        self._buckets: deque[list[int]] = deque()

    def add(self, failed: bool, now: float) -> tuple[int, int]:
        """Count a call; return how many there were, and how many failed."""
        step = int(now / self._step)
        buckets = self._buckets
        while buckets and buckets[0][0] <= step - _BUCKETS:
            buckets.popleft()
        if not buckets or buckets[-1][0] != step:
            buckets.append([step, 0, 0])
        buckets[-1][1] += 1
        buckets[-1][2] += failed
        return sum(bucket[1] for bucket in buckets), sum(bucket[2] for bucket in buckets)
