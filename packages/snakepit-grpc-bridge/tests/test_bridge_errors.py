"""Every error of the platform survives pickle and the way between processes."""

from __future__ import annotations

import pickle

import pytest

from snakepit.errors import SnakepitError
from snakepit_grpc_bridge import errors
from snakepit_grpc_bridge.errors import (
    InputMismatch,
    InstanceNotFound,
    OutputFieldMissing,
    SessionLost,
    SessionNotFound,
    ToolNotFound,
    VariableNotFound,
)

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.code)
def test_errors_travel(cls: type[SnakepitError]) -> None:
    error = cls("it broke; mend it", details={"where": [1, "a"]})
    error.__cause__ = KeyError("why")
    for copy in (pickle.loads(pickle.dumps(error)), SnakepitError.from_wire(error.to_wire())):
        assert type(copy) is cls
        assert str(copy) == "it broke; mend it"
        assert copy.details == {"where": [1, "a"]}
        assert (copy.outcome, copy.retryable) == (error.outcome, error.retryable)
        assert isinstance(copy.__cause__, KeyError)


def test_codes_are_unique_and_documented() -> None:
    assert len({cls.code for cls in CLASSES}) == len(CLASSES)
    assert all(cls.__doc__ for cls in CLASSES)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SessionNotFound.of("s"), "start it first"),
        (SessionLost.of("s", "i", "dspy.Predict"), "create the instance again"),
        (InstanceNotFound.of("i", "s"), "create_instance"),
        (VariableNotFound.of("temprature", "s", ["temperature"]), "'temperature'"),
        (ToolNotFound.of("prise", "s", ["price"]), "did you mean 'price'"),
        (InputMismatch.of("a -> b", ["a"], ["c"]), "missing: a; not in the signature: c"),
        (OutputFieldMissing.of("a -> b", ["b"]), "has no 'b'"),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_messages_say_what_to_do(error: SnakepitError, said: str) -> None:
    assert said in str(error)
