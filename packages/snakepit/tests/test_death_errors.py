"""What a worker's end means to its calls. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snakepit.errors import ResourceLimitExceeded, WorkerError, WorkerHung, WorkerLost
from snakepit.link.death import Death, Kill
from snakepit.processes.tree import ExitReport


def death(report: ExitReport, kill: Kill | None = None, phase: str = "call") -> Death:
    return Death(
        worker_id="w-1", pid=7, report=report, kill=kill, phase=phase, last_output="last words"
    )


@pytest.mark.parametrize(
    ("seen", "kind", "reason"),
    [
        (death(ExitReport(signal="SIGSEGV")), WorkerLost, "crash"),
        (death(ExitReport(code=0)), WorkerLost, "crash"),
        (death(ExitReport()), WorkerLost, "crash"),
        (death(ExitReport(keeper_died=True)), WorkerLost, "with its keeper process"),
        (death(ExitReport(signal="SIGKILL"), Kill("late")), WorkerLost, "killed: late"),
        (death(ExitReport(signal="SIGKILL"), Kill("x", hung=True)), WorkerHung, "killed: x"),
        (death(ExitReport(signal="SIGXCPU")), ResourceLimitExceeded, "CPU time"),
        (death(ExitReport(signal="SIGXCPU"), Kill("late")), WorkerLost, "killed: late"),
    ],
)
def test_the_error_says_who_ended_it_and_why(
    seen: Death, kind: type[WorkerError], reason: str
) -> None:
    error = seen.error()
    assert type(error) is kind
    assert reason in error.details["reason"]
    assert (error.details["worker_id"], error.details["pid"]) == ("w-1", 7)
    assert "last words" in str(error)
    assert seen.error() is not error


def test_only_an_end_of_its_own_during_a_call_is_a_crash() -> None:
    report = ExitReport(signal="SIGKILL")
    assert death(report).was_a_crash
    assert not death(report, phase="idle").was_a_crash
    assert not death(report, Kill("deadline")).was_a_crash
    assert not death(ExitReport(keeper_died=True)).was_a_crash


@pytest.mark.parametrize(
    ("signal", "kill", "oom_kills", "hint"),
    [
        ("SIGKILL", None, 1, "out of memory?"),
        ("SIGKILL", None, 0, "killed from outside"),
        ("SIGKILL", Kill("late"), 1, ""),
        ("SIGSEGV", None, 1, ""),
    ],
)
def test_a_kill_by_somebody_else_has_a_guess_by_whom(
    signal: str, kill: Kill | None, oom_kills: int, hint: str
) -> None:
    seen = replace(death(ExitReport(signal=signal), kill), oom_kills=oom_kills)
    error = seen.error()
    assert isinstance(error, WorkerLost)
    assert error.hint.startswith(hint)
    assert bool(error.hint) == bool(hint)
    assert error.hint in str(error)


def test_the_message_shows_the_end_of_the_output_and_the_details_all() -> None:
    lines = "\n".join(f"line {number}" for number in range(40))
    error = WorkerHung.of(
        worker_id=1, pid=2, reason="r", phase="idle", last_output=lines, hint="h?", stacks="s"
    )
    assert "line 20" in str(error)
    assert "line 19" not in str(error)
    assert error.last_output == lines
    assert (error.hint, error.stacks) == ("h?", "s")
    assert "h?" in str(error)
