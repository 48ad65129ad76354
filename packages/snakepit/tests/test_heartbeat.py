"""Which silent worker is hung. Pure: no process is looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snakepit.errors import ConfigurationError
from snakepit.processes.vitals import Vitals
from snakepit.supervision.heartbeat import Heartbeat, Pulse, Verdict, judge

#: At first, with ten ticks of a hundredth of a second.
ASLEEP = Vitals(frozenset("S"), 10, 5.0)
VITALS = st.none() | st.builds(
    Vitals,
    st.frozensets(st.sampled_from("RSDTtZ"), min_size=1),
    st.integers(0, 20),
    st.floats(0, 10),
)


@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (Vitals(frozenset("T"), 10, 5.0), Verdict.STOPPED),
        (Vitals(frozenset("ST"), 10, 5.0), Verdict.STOPPED),
        (Vitals(frozenset("t"), 10, 5.0), Verdict.BUSY),
        (Vitals(frozenset("R"), 10, 5.0), Verdict.BUSY),
        (Vitals(frozenset("SR"), 10, 5.0), Verdict.BUSY),
        (Vitals(frozenset("D"), 10, 5.0), Verdict.BUSY),
        (Vitals(frozenset("S"), 36, 6.0), Verdict.BUSY),
    ],
)
def test_the_process_tells_whether_it_is_at_work(idle: bool, now: Vitals, verdict: Verdict) -> None:
    assert judge(missed=3, limit=3, idle=idle, before=ASLEEP, now=now) is verdict


def test_threads_that_ask_for_a_lost_lock_again_and_again_are_no_work() -> None:
    pulse = Pulse(limit=3)
    asking = [Vitals(frozenset("S"), 10 + 5 * looks, 5.0 + looks) for looks in range(3)]
    verdicts = [pulse.silent(in_flight=0, vitals=each) for each in asking]
    assert verdicts == [Verdict.SILENT, Verdict.SILENT, Verdict.DEADLOCKED]


@pytest.mark.parametrize("now", [ASLEEP, None])
def test_one_that_sleeps_is_hung_only_if_it_had_nothing_to_do(now: Vitals | None) -> None:
    assert judge(missed=3, limit=3, idle=True, before=ASLEEP, now=now) is Verdict.DEADLOCKED
    assert judge(missed=3, limit=3, idle=False, before=ASLEEP, now=now) is Verdict.BUSY


@given(st.integers(0, 9), st.integers(1, 9), st.booleans(), VITALS, VITALS)
def test_nothing_is_hung_before_its_time(
    missed: int, limit: int, idle: bool, before: Vitals | None, now: Vitals | None
) -> None:
    verdict = judge(missed=missed, limit=limit, idle=idle, before=before, now=now)
    if missed < limit:
        assert verdict is (Verdict.SILENT if missed else Verdict.ALIVE)
    else:
        assert verdict in (Verdict.BUSY, Verdict.STOPPED, Verdict.DEADLOCKED)


def test_a_call_given_to_a_worker_that_was_silent_before_does_not_excuse_it() -> None:
    pulse = Pulse(limit=3)
    verdicts = [pulse.silent(in_flight=calls, vitals=ASLEEP) for calls in (0, 1, 1)]
    assert verdicts == [Verdict.SILENT, Verdict.SILENT, Verdict.DEADLOCKED]


def test_an_answer_makes_the_count_start_again() -> None:
    pulse = Pulse(limit=2)
    assert pulse.silent(in_flight=1, vitals=ASLEEP) is Verdict.SILENT
    pulse.answered(completed=5)
    assert pulse.silent(in_flight=0, vitals=ASLEEP) is Verdict.SILENT
    assert pulse.silent(in_flight=0, vitals=ASLEEP) is Verdict.DEADLOCKED


@pytest.mark.parametrize(
    "options", [{"interval": 0}, {"interval": float("nan")}, {"misses": 0}, {"misses": 1.5}]
)
def test_impossible_heartbeats_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Heartbeat(**options)  # type: ignore[arg-type]
