"""Calls that are refused while whatever serves them is down."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from snakepit.checks import is_number, seconds, whole_number
from snakepit.errors import CircuitOpen, ConfigurationError, Outcome, PoolClosed, SnakepitError
from snakepit.policies import events
from snakepit.policies.circuit import Circuit, CircuitRules, CircuitState, Verdict
from snakepit.policies.stack import Policy, PolicyCall, Proceed, ProceedStream
from snakepit.telemetry import bus


def is_breakdown(error: BaseException) -> bool:
    """Whether an error tells of a breakdown: the call was sent, and what became of it is unknown.

    That is a crash, a hang, a deadline, a broken protocol. What the command itself raises is an
    answer; what never reached a worker (a wrong argument, a full queue) says nothing.
    """
    return (
        isinstance(error, SnakepitError)
        and error.outcome is Outcome.UNKNOWN
        and not isinstance(error, PoolClosed)
    )


class CircuitBreaker(Policy):
    """Refuses calls while whatever serves them is down, instead of having every caller find out.

    Closed, it lets all calls pass. It opens when ``failures`` calls in a row have failed, or
    ``error_rate`` of the calls within ``window`` seconds. Open, it refuses all with CircuitOpen,
    which says when to come back. After ``open_time`` seconds it is half open: ``probes`` calls may
    pass. When all of them succeed it closes; when one fails, or they have not ended within
    ``open_time``, it opens again.

    One object is one circuit, for all that use it: a stack for a pool, or one for each command.
    Calls that began before the circuit changed its state are not counted, nor are cancelled ones.

    Args:
        failures: failures in a row.
        error_rate: part of the calls, from 0 to 1.
        least_calls: below this many calls in the window, their rate says nothing.
        window: seconds.
        open_time: seconds.
        probes: calls.
        is_failure: which errors count as failures. By default those of calls whose end is unknown:
            the worker crashed or hung, or the time was over. Any other error that a worker answered
            with counts as a success, and what never reached a worker counts as nothing.
        name: what telemetry calls it.

    Raises:
        ConfigurationError: a value is impossible.

    Example::

        breaker = CircuitBreaker(failures=5, open_time=10.0)
        calls = with_policies(pool, RetryPolicy(), breaker)
        print(breaker.state)
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        error_rate: float = 0.5,
        least_calls: int = 20,
        window: float | timedelta = 10.0,
        open_time: float | timedelta = 30.0,
        probes: int = 1,
        is_failure: Callable[[Exception], bool] = is_breakdown,
        name: str = "default",
    ) -> None:
        if not is_number(error_rate) or not 0 < error_rate <= 1:
            raise ConfigurationError(
                f"error_rate is {error_rate!r}; it has to be a part of the calls, such as 0.5"
            )
        self._circuit = Circuit(
            CircuitRules(
                failures=whole_number("failures", failures),
                error_rate=error_rate,
                least_calls=whole_number("least_calls", least_calls),
                window=seconds("window", window),
                open_time=seconds("open_time", open_time),
                probes=whole_number("probes", probes),
            )
        )
        self._is_failure = is_failure
        self._name = name

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.state.value}>"

    @property
    def state(self) -> CircuitState:
        """Whether calls pass now. ``HALF_OPEN`` also when the next call would be a probe."""
        return self._circuit.state(time.monotonic())

    def reset(self) -> None:
        """Close the circuit, and forget all failures."""
        before = self._circuit.phase
        self._circuit.reset()
        if bus.listening:
            self._tell_change(before, None)

    async def execute(self, call: PolicyCall, proceed: Proceed) -> Any:
        """Run a call, or refuse it.

        Raises:
            CircuitOpen: the circuit is open; nothing was sent.
        """
        ticket = self._admit(call)
        verdict = Verdict.NOTHING
        try:
            result = await proceed(call)
            verdict = Verdict.SUCCESS
        except Exception as error:
            verdict = self._verdict_on(error)
            raise
        finally:
            self._record(call, ticket, verdict)
        return result

    async def execute_stream(self, call: PolicyCall, proceed: ProceedStream) -> AsyncGenerator[Any]:
        """The items of a stream, unless it is refused; one that is left early has succeeded, if an
        item has arrived.

        Raises:
            CircuitOpen: the circuit is open; nothing was sent.
        """
        ticket = self._admit(call)
        verdict = Verdict.NOTHING
        try:
            async with aclosing(proceed(call)) as items:
                async for item in items:
                    verdict = Verdict.SUCCESS
                    yield item
            verdict = Verdict.SUCCESS
        except Exception as error:
            verdict = self._verdict_on(error)
            raise
        finally:
            self._record(call, ticket, verdict)

    def _admit(self, call: PolicyCall) -> int:
        now = time.monotonic()
        before = self._circuit.phase
        ticket = self._circuit.admit(now)
        if bus.listening:
            self._tell_change(before, call)
        if ticket is None:
            retry_after = self._circuit.retry_after(now)
            if bus.listening:
                events.circuit_refused(self._name, call.command, retry_after)
            raise CircuitOpen.of(call.command, retry_after_s=retry_after)
        return ticket

    def _record(self, call: PolicyCall, ticket: int, verdict: Verdict) -> None:
        before = self._circuit.phase
        self._circuit.record(ticket, verdict, time.monotonic())
        if bus.listening:
            self._tell_change(before, call)

    def _tell_change(self, before: CircuitState, call: PolicyCall | None) -> None:
        state = self._circuit.phase
        if state is not before:
            events.circuit_entered(self._name, state, None if call is None else call.command)

    def _verdict_on(self, error: Exception) -> Verdict:
        if self._is_failure(error):
            return Verdict.FAILURE
        answered = not isinstance(error, SnakepitError) or error.outcome is Outcome.DONE
        return Verdict.SUCCESS if answered else Verdict.NOTHING
