from __future__ import annotations

import pytest

from dspex.cli.failures import ExitCode, describe, exit_code_of, report
from dspex.errors import (
    CallTimeout,
    ConfigurationError,
    InputMismatch,
    LmCallFailed,
    ModelNotFound,
    ModelUnreadable,
    PoolStartFailed,
    RemoteError,
    SignatureInvalid,
    WorkerLost,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelNotFound("x"), ExitCode.USAGE),
        (ModelUnreadable("x"), ExitCode.USAGE),
        (LmCallFailed("x"), ExitCode.FAILED),
        (WorkerLost("x"), ExitCode.FAILED),
        (RuntimeError("x"), ExitCode.FAILED),
        (ConfigurationError("x"), ExitCode.USAGE),
        (SignatureInvalid("x"), ExitCode.USAGE),
        (CallTimeout("x"), ExitCode.TIMEOUT),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) == code


def test_a_message_of_several_lines_becomes_one() -> None:
    assert describe(ConfigurationError("wrong:\n  - a\n  - b")) == "wrong: - a - b"


def test_a_cause_that_says_more_is_told() -> None:
    error = PoolStartFailed("no worker came up")
    error.__cause__ = ModelNotFound("the file is missing")
    assert describe(error) == "no worker came up: the file is missing"
    error.__cause__ = ModelNotFound("no worker")
    assert describe(error) == "no worker came up"


def test_an_error_of_no_known_kind_says_how_to_see_more() -> None:
    assert describe(ZeroDivisionError("x")) == "unexpected ZeroDivisionError: x (see --debug)"


def test_what_a_model_said_is_told_once() -> None:
    error = LmCallFailed("the model 'x/y' failed: it is closed")
    error.__cause__ = RemoteError("[x/y] it is closed")
    assert describe(error) == "the model 'x/y' failed: it is closed"


def test_wrong_input_is_told_under_the_commands_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(InputMismatch("text is empty"), debug=False, command="ask") == ExitCode.USAGE
    assert report(WorkerLost("it died"), debug=False, command="ask") == ExitCode.FAILED
    assert capsys.readouterr().err == "dspex ask: text is empty\ndspex: it died\n"
