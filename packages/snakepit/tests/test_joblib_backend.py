"""joblib's calls in the workers of an executor."""

from __future__ import annotations

import math
import os
import signal
from typing import Any

import joblib
import pytest

from snakepit.errors import WorkerLost
from snakepit.executor import joblib_backend

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("silent_on_stderr")]


@pytest.fixture(autouse=True)
def _registered() -> None:
    joblib_backend.register()


def test_calls_run_in_workers() -> None:
    with joblib.parallel_config(joblib_backend.NAME, n_jobs=2):
        roots = joblib.Parallel()(joblib.delayed(math.sqrt)(n) for n in range(20))
        assert roots == [math.sqrt(n) for n in range(20)]
        with joblib.Parallel() as parallel:
            pids = {*parallel(joblib.delayed(os.getpid)() for _ in range(4))}
            pids |= {*parallel(joblib.delayed(os.getpid)() for _ in range(4))}
        assert 1 <= len(pids) <= 2
        assert os.getpid() not in pids
        ordered = joblib.Parallel(return_as="generator")(joblib.delayed(abs)(-n) for n in range(5))
        assert list(ordered) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("function", "argument", "error"),
    [(math.sqrt, -1, ValueError), (signal.raise_signal, signal.SIGKILL, WorkerLost)],
)
def test_the_error_of_a_call_is_raised(
    function: Any, argument: int, error: type[Exception]
) -> None:
    with joblib.parallel_config(joblib_backend.NAME, n_jobs=2):
        with pytest.raises(error):
            joblib.Parallel()(joblib.delayed(function)(argument) for _ in range(4))
        assert joblib.Parallel()(joblib.delayed(abs)(n) for n in (-1, 1)) == [1, 1]


def test_jobs_are_counted_as_joblib_does() -> None:
    count = joblib_backend.SnakepitBackend().effective_n_jobs
    processors = os.cpu_count() or 1
    assert [count(n) for n in (1, 5, None, -1)] == [1, 5, processors, processors]
    assert count(-processors - 5) == 1
    with pytest.raises(ValueError, match="no meaning"):
        count(0)
