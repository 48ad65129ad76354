"""The circuit of a breaker against a model that remembers everything."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from snakepit.policies.circuit import Circuit, CircuitRules, CircuitState, Verdict

CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
RULES = CircuitRules(
    failures=3, error_rate=0.5, least_calls=4, window=10.0, open_time=5.0, probes=2
)


def new_circuit(**rules: Any) -> Circuit:
    defaults: dict[str, Any] = {
        "failures": 3, "error_rate": 1.0, "least_calls": 1000, "window": 10.0, "open_time": 5.0,
        "probes": 1,
    }  # fmt: skip
    return Circuit(CircuitRules(**{**defaults, **rules}))


def ticket(circuit: Circuit, now: float) -> int:
    found = circuit.admit(now)
    assert found is not None
    return found


def fail(circuit: Circuit, now: float, times: int = 1) -> None:
    for _ in range(times):
        circuit.record(ticket(circuit, now), Verdict.FAILURE, now)


def succeed(circuit: Circuit, now: float) -> None:
    circuit.record(ticket(circuit, now), Verdict.SUCCESS, now)


def test_failures_in_a_row_open_it_and_a_success_starts_anew() -> None:
    circuit = new_circuit()
    fail(circuit, 0.0, 2)
    succeed(circuit, 0.0)
    fail(circuit, 0.0, 2)
    assert circuit.state(0.0) is CLOSED
    fail(circuit, 0.0)
    assert circuit.state(0.0) is OPEN
    assert circuit.admit(0.0) is None


def test_a_rate_of_failures_opens_it_once_there_are_enough_calls_in_the_window() -> None:
    circuit = new_circuit(failures=1000, error_rate=0.5, least_calls=6)
    for now in (0.0, 1.0):
        succeed(circuit, now)
        fail(circuit, now)
    assert circuit.state(1.0) is CLOSED
    # The first ones are out of the window by now, so these are few.
    fail(circuit, 10.5, 2)
    assert circuit.state(10.5) is CLOSED
    fail(circuit, 10.5, 2)
    assert circuit.state(10.5) is OPEN


def test_it_is_half_open_after_its_time_and_closes_when_a_probe_succeeds() -> None:
    circuit = new_circuit()
    fail(circuit, 0.0, 3)
    assert circuit.retry_after(2.0) == 3.0
    assert circuit.admit(4.9) is None
    assert circuit.state(5.0) is HALF_OPEN
    succeed(circuit, 5.0)
    assert circuit.state(5.0) is CLOSED
    fail(circuit, 5.0, 2)
    assert circuit.state(5.0) is CLOSED


def test_a_probe_that_fails_opens_it_again() -> None:
    circuit = new_circuit()
    fail(circuit, 0.0, 3)
    fail(circuit, 6.0)
    assert circuit.state(6.0) is OPEN
    assert circuit.retry_after(6.0) == 5.0


def test_only_so_many_probes_pass_and_all_have_to_succeed() -> None:
    circuit = new_circuit(probes=2)
    fail(circuit, 0.0, 3)
    first, second = ticket(circuit, 5.0), ticket(circuit, 5.0)
    assert circuit.admit(5.0) is None
    circuit.record(first, Verdict.SUCCESS, 5.0)
    assert circuit.admit(5.0) is None
    assert circuit.state(5.0) is HALF_OPEN
    circuit.record(second, Verdict.SUCCESS, 5.0)
    assert circuit.state(5.0) is CLOSED


def test_a_probe_that_tells_nothing_makes_room_for_another() -> None:
    circuit = new_circuit()
    fail(circuit, 0.0, 3)
    circuit.record(ticket(circuit, 5.0), Verdict.NOTHING, 5.0)
    assert circuit.state(5.0) is HALF_OPEN
    succeed(circuit, 5.0)
    assert circuit.state(5.0) is CLOSED


def test_a_probe_that_never_ends_does_not_keep_it_half_open() -> None:
    circuit = new_circuit()
    fail(circuit, 0.0, 3)
    stuck = ticket(circuit, 5.0)
    assert circuit.retry_after(6.0) == 4.0
    assert circuit.admit(10.0) is None
    assert circuit.state(10.0) is OPEN
    circuit.record(stuck, Verdict.SUCCESS, 11.0)
    assert circuit.state(11.0) is OPEN
    succeed(circuit, 15.0)
    assert circuit.state(15.0) is CLOSED


def test_what_ends_in_another_state_than_it_began_in_is_not_counted() -> None:
    circuit = new_circuit()
    early = [ticket(circuit, 0.0) for _ in range(5)]
    fail(circuit, 0.0, 3)
    for each in early[:4]:
        circuit.record(each, Verdict.FAILURE, 5.0)
    succeed(circuit, 5.0)
    circuit.record(early[4], Verdict.FAILURE, 5.0)
    fail(circuit, 5.0, 2)
    assert circuit.state(5.0) is CLOSED


def test_it_can_be_reset() -> None:
    circuit = new_circuit()
    fail(circuit, 0.0, 3)
    circuit.reset()
    assert circuit.state(0.0) is CLOSED
    fail(circuit, 0.0, 2)
    assert circuit.state(0.0) is CLOSED


class CircuitModel(RuleBasedStateMachine):
    """Remembers every call since the last change of state, and judges from all of them."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(RULES)
        self.now = 0.0
        self.expected = CLOSED
        self.since = 0.0
        # Of the present state: who passed and has not ended, and what has: when, and how.
        self.open_calls: set[object] = set()
        self.ended: list[tuple[float, Verdict]] = []
        self.all_ended: set[object] = set()

    def enter(self, state: CircuitState) -> None:
        self.expected, self.since = state, self.now
        self.open_calls, self.ended = set(), []

    @rule(steps=st.integers(0, 70))
    def time_passes(self, steps: int) -> None:
        self.now += steps * RULES.window / 20

    @rule(target=tickets)
    def call(self) -> tuple[int | None, object]:
        over = self.now - self.since >= RULES.open_time
        if self.expected is OPEN and over:
            self.enter(HALF_OPEN)
        elif self.expected is HALF_OPEN and over:
            self.enter(OPEN)
        passes = self.expected is CLOSED
        if self.expected is HALF_OPEN:
            successes = [verdict for _, verdict in self.ended if verdict is Verdict.SUCCESS]
            passes = len(self.open_calls) + len(successes) < RULES.probes
        found = self.circuit.admit(self.now)
        assert (found is not None) == passes
        mark = object()
        if passes:
            self.open_calls.add(mark)
        return found, mark

    @rule(call=tickets, verdict=st.sampled_from(Verdict))
    def end(self, call: tuple[int | None, object], verdict: Verdict) -> None:
        number, mark = call
        if number is None or mark in self.all_ended:
            return
        self.all_ended.add(mark)
        self.circuit.record(number, verdict, self.now)
        if mark not in self.open_calls:
            return  # of an earlier state
        self.open_calls.remove(mark)
        self.ended.append((self.now, verdict))
        if self.expected is HALF_OPEN:
            self.judge_probes(verdict)
        elif verdict is Verdict.FAILURE:
            self.judge_calls()

    def judge_probes(self, verdict: Verdict) -> None:
        successes = sum(each is Verdict.SUCCESS for _, each in self.ended)
        if verdict is Verdict.FAILURE:
            self.enter(OPEN)
        elif successes == RULES.probes:
            self.enter(CLOSED)

    def judge_calls(self) -> None:
        counted = [(at, each) for at, each in self.ended if each is not Verdict.NOTHING]
        last = [each for _, each in counted[-RULES.failures :]]
        in_a_row = len(last) == RULES.failures and set(last) == {Verdict.FAILURE}
        step = RULES.window / 10
        recent = [each for at, each in counted if int(at / step) > int(self.now / step) - 10]
        rate = recent.count(Verdict.FAILURE) / len(recent)
        if in_a_row or (len(recent) >= RULES.least_calls and rate >= RULES.error_rate):
            self.enter(OPEN)

    @rule()
    def reset(self) -> None:
        self.circuit.reset()
        self.enter(CLOSED)

    @invariant()
    def state_is_that_of_the_model(self) -> None:
        over = self.expected is OPEN and self.now - self.since >= RULES.open_time
        assert self.circuit.state(self.now) is (HALF_OPEN if over else self.expected)


TestCircuitModel = CircuitModel.TestCase
