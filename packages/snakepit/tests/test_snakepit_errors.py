"""The error tree: its table, and every way an error travels."""

from __future__ import annotations

import builtins
import copy
import pickle
from typing import Any

import pytest

from snakepit import errors
from snakepit.errors import (
    AdapterInvalid,
    CallTimeout,
    ConfigurationError,
    DecodeError,
    EncodeError,
    Outcome,
    PayloadTooLarge,
    PoolSaturated,
    ProtocolError,
    QueueTimeout,
    RemoteError,
    SnakepitError,
    UnknownCommand,
    WorkerLost,
    error_from_wire,
    error_to_wire,
)
from snakepit.errors.error_text import MESSAGE_LIMIT, TRACEBACK_LIMIT

TREE = {
    "ConfigurationError": "ConfigurationError AdapterInvalid AdapterInitFailed",
    "PoolError": "PoolStartFailed PoolClosed PoolNotReady PoolSaturated PoolBroken QueueTimeout "
    "WorkerBusy SessionWorkerUnavailable NoWorkersAvailable PoisonCall CircuitOpen",
    "WorkerError": "WorkerStartFailed WorkerLost WorkerHung ResourceLimitExceeded",
    "CallError": "CallTimeout UnknownCommand StreamingNotSupported StreamBroken CallDepthExceeded "
    "RemoteError",
    "ValueTransportError": "EncodeError DecodeError PayloadTooLarge ProtocolError VersionMismatch",
}
CLASSES: list[type[SnakepitError]] = [
    cls
    for name in errors.__all__
    if isinstance(cls := getattr(errors, name), type) and issubclass(cls, SnakepitError)
]
BUILTINS = sorted(
    name
    for name, found in vars(builtins).items()
    if isinstance(found, type) and issubclass(found, BaseException)
)
MADE: list[SnakepitError] = [
    *(
        cls(f"{cls.__name__} happened", details={"n": 1, "list": [1, "a", None, b"\xff"]})
        for cls in CLASSES
    ),
    *(RemoteError.of(name, "it failed", remote_traceback="Traceback ...") for name in BUILTINS),
    RemoteError.of("app.models.Broken", "no", builtin="LookupError"),
    CallTimeout.of("work", limit="stream_idle", timeout_s=2, queued_s=0.5, ran_s=1.5),
    WorkerLost.of(worker_id=3, pid=42, reason="crash", phase="call", signal="SIGSEGV"),
    PayloadTooLarge.of(12, 10),
    UnknownCommand.of("wrok", ["work", "other"]),
    AdapterInvalid.of("pkg:Cls", ["no execute", "no name"]),
]


def same(one: SnakepitError, other: SnakepitError) -> bool:
    """Whether all is the same but where it came from."""
    states = [{**error.__dict__, "from_peer": None} for error in (one, other)]
    return type(one) is type(other) and states[0] == states[1] and one.args == other.args


@pytest.mark.parametrize(("base", "names"), TREE.items())
def test_the_tree_is_that_of_the_architecture(base: str, names: str) -> None:
    for name in names.split():
        cls = getattr(errors, name)
        assert issubclass(cls, getattr(errors, base)), name
        assert cls.__module__ == "snakepit.errors"
        assert cls.__doc__


def test_codes_are_unique_and_every_class_has_its_own() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", MADE, ids=repr)
def test_an_error_survives_pickle_copy_and_the_wire(error: SnakepitError) -> None:
    assert same(pickle.loads(pickle.dumps(error)), error)
    assert same(copy.copy(error), error)
    assert same(copy.deepcopy(error), error)
    assert same(SnakepitError.from_wire(error.to_wire()), error)


def test_builtin_bases() -> None:
    assert issubclass(CallTimeout, TimeoutError)
    assert issubclass(QueueTimeout, TimeoutError)


def test_outcome_and_retryable_default_to_the_class_and_can_be_given() -> None:
    lost = WorkerLost("gone")
    assert (lost.outcome, lost.retryable) == (Outcome.UNKNOWN, False)
    before = WorkerLost("gone", outcome=Outcome.NONE, retryable=True)
    assert (before.outcome, before.retryable) == ("none", True)
    assert PoolSaturated("full").retryable
    assert RemoteError("x").outcome == "done"


def test_details_are_copied() -> None:
    given = {"a": 1}
    error = SnakepitError("x", details=given)
    given["a"] = 2
    assert error.details == {"a": 1}


def test_convenience_properties() -> None:
    timeout = CallTimeout.of("work", limit="queue", timeout_s=2, queued_s=2.0, ran_s=0)
    assert (timeout.limit, timeout.queued_s, timeout.ran_s) == ("queue", 2.0, 0)
    assert timeout.outcome == "none"
    lost = WorkerLost.of(
        worker_id="w1", pid=7, reason="crash", phase="call", exit_code=3, last_output="boom"
    )
    assert (lost.worker_id, lost.pid, lost.exit_code, lost.signal) == ("w1", 7, 3, None)
    assert (lost.reason, lost.phase, lost.last_output) == ("crash", "call", "boom")
    assert "exited with 3" in str(lost)
    assert "boom" in str(lost)
    unknown = UnknownCommand.of("wrok", ["work", "other"])
    assert (unknown.hint, unknown.known) == ("work", ["other", "work"])
    assert "did you mean 'work'?" in str(unknown)
    assert UnknownCommand.of("x", []).hint is None
    assert EncodeError("no", details={"path": "args.x"}).path == "args.x"
    assert DecodeError("no").path is None
    large = PayloadTooLarge.of(12, 10)
    assert (large.size, large.limit) == (12, 10)
    invalid = AdapterInvalid.of("pkg:Cls", ["no execute", "no name"])
    assert invalid.problems == ["no execute", "no name"]
    assert "no execute" in str(invalid)


# --- subclasses of other packages ----------------------------------------------------------------


class ShelfEmpty(SnakepitError, KeyError):
    """A subclass as upper layers write it, with a constructor of its own."""

    code = "test_shelf_empty"
    retryable = True

    def __init__(self, shelf: str) -> None:
        super().__init__(f"shelf {shelf} is empty", details={"shelf": shelf})


def test_a_subclass_with_its_own_constructor_and_a_builtin_base_travels() -> None:
    error = ShelfEmpty("a")
    assert str(error) == "shelf a is empty"  # KeyError alone would quote it
    for again in (pickle.loads(pickle.dumps(error)), error_from_wire(error.to_wire())):
        assert same(again, error)
        assert isinstance(again, KeyError)


def test_a_code_is_taken_once_but_a_reload_may_define_it_again() -> None:
    with pytest.raises(TypeError, match=r"test_shelf_empty.*is taken by.*ShelfEmpty"):
        type("Other", (SnakepitError,), {"code": "test_shelf_empty", "__module__": "other"})
    namespace = {"code": "test_reloaded", "__module__": __name__, "__qualname__": "Reloaded"}
    type("Reloaded", (SnakepitError,), dict(namespace))
    again = type("Reloaded", (SnakepitError,), dict(namespace))
    assert type(error_from_wire(again("x").to_wire())) is again


@pytest.mark.parametrize("namespace", [{}, {"code": "Not Snake"}, {"code": None}])
def test_a_subclass_without_a_proper_code_is_refused(namespace: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must declare its own class attribute `code`"):
        type("Codeless", (ConfigurationError,), namespace)


# --- foreign exceptions --------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILTINS)
def test_a_remote_builtin_is_an_exception_of_its_family(name: str) -> None:
    error = RemoteError.of(name, "it failed")
    assert isinstance(error, Exception)
    assert str(error) == "it failed"
    assert error.remote_type == name
    with pytest.raises(RemoteError):
        raise error
    stands_for = [base for base in type(error).__mro__ if base.__module__ == "builtins"]
    if not issubclass(getattr(builtins, name), Exception):
        assert type(error) is RemoteError, "an exit or interrupt must not escape from the host"
    assert not any(
        issubclass(
            base, (UnicodeDecodeError, StopIteration, StopAsyncIteration, BaseExceptionGroup)
        )
        for base in stands_for
    )


def test_remote_errors_are_caught_as_the_builtin() -> None:
    assert isinstance(RemoteError.of("ValueError", "x"), ValueError)
    assert isinstance(RemoteError.of("FileNotFoundError", "x"), OSError)
    assert isinstance(RemoteError.of("UnicodeDecodeError", "x"), UnicodeError)
    assert type(RemoteError.of("app.Own", "x")) is RemoteError
    assert type(RemoteError.of("print", "x")) is RemoteError
    assert type(RemoteError.of("__import__", "x")) is RemoteError
    assert type(RemoteError.of("KeyError", "a")) is type(RemoteError.of("KeyError", "b"))


class Misplaced(LookupError):
    """An exception of user code."""


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    if cause is not None:
        error.__cause__ = cause
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_foreign_exception_becomes_a_remote_error_with_type_traceback_and_cause() -> None:
    wire = error_to_wire(raised(Misplaced("gone"), raised(KeyError("k"))))
    error = error_from_wire(wire)
    assert isinstance(error, RemoteError)
    assert isinstance(error, LookupError)
    assert str(error) == "gone"
    assert error.remote_type == f"{__name__}.Misplaced"
    assert error.remote_traceback is not None
    assert "raise error" in error.remote_traceback
    assert error.remote_traceback.rstrip().endswith("Misplaced: gone")
    assert isinstance(error.__cause__, KeyError)
    assert "Misplaced: gone" in "".join(error.__notes__)


def test_the_whole_chain_survives_two_hops_with_the_first_traceback() -> None:
    try:
        try:
            raise Misplaced("deep")
        except Misplaced as deep:
            raise WorkerLost("lost") from deep
    except WorkerLost as lost:
        once = error_from_wire(lost.to_wire())
    twice = error_from_wire(raised(once).to_wire())  # type: ignore[attr-defined]
    assert type(twice) is WorkerLost
    assert twice.remote_traceback == once.remote_traceback
    assert isinstance(twice.__cause__, RemoteError)
    assert twice.__cause__.remote_type == f"{__name__}.Misplaced"
    assert twice.to_wire() == once.to_wire()


def test_the_context_counts_as_the_cause_unless_suppressed() -> None:
    error = raised(ValueError("second"))
    error.__context__ = raised(KeyError("first"))
    assert error_to_wire(error)["cause"]["type"] == "KeyError"
    error.__suppress_context__ = True
    assert error_to_wire(error)["cause"] is None


def test_a_pickled_error_keeps_a_foreign_cause_as_data() -> None:
    error = raised(SnakepitError("x"), Misplaced("why"))
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again.__cause__, RemoteError)
    assert isinstance(again.__cause__, LookupError)
    assert str(again.__cause__) == "why"


class Hostile(Exception):
    """Everything about it is broken."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_a_broken_str_does_not_hurt() -> None:
    wire = error_to_wire(raised(Hostile()))
    assert wire["message"] == "<str() of the exception failed with RuntimeError>"
    assert isinstance(error_from_wire(wire), RemoteError)


def test_text_is_bounded_and_valid() -> None:
    wire = error_to_wire(raised(ValueError("\ud800" + "x" * 1_000_000)))
    assert len(wire["message"]) < MESSAGE_LIMIT + 100
    assert len(wire["traceback"]) < TRACEBACK_LIMIT + 100
    wire["message"].encode()
    assert "characters left out" in wire["message"]


def test_details_become_plain_data() -> None:
    details: dict[Any, Any] = {"o": Hostile(), "t": (1, 2), 3: "key", "e": Outcome.DONE, "s": {1}}
    wire = SnakepitError("x", details=details).to_wire()
    assert wire["details"] == {
        "o": "<repr() of Hostile failed with RuntimeError>",
        "t": [1, 2],
        "3": "key",
        "e": "done",
        "s": [1],
    }
    deep: list[Any] = []
    deep.append(deep)
    assert error_from_wire(SnakepitError("x", details={"d": deep}).to_wire()).details["d"]


def test_long_and_cyclic_chains_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert error_to_wire(first)["cause"]["cause"] is None
    link: Exception = ValueError("0")
    for number in range(100):
        following = ValueError(str(number))
        following.__cause__ = link
        link = following
    depth, wire = 0, error_to_wire(link)
    while wire["cause"]:
        depth, wire = depth + 1, wire["cause"]
    assert depth == 8


def test_an_unknown_code_is_a_remote_error_that_keeps_the_code() -> None:
    wire = SnakepitError("x", retryable=True, details={"a": 1}).to_wire()
    error = error_from_wire({**wire, "code": "of_a_later_version", "type": "later.Error"})
    assert type(error) is RemoteError
    assert error.details == {
        "a": 1,
        "remote_code": "of_a_later_version",
        "remote_type": "later.Error",
    }
    assert error.retryable


GOOD = SnakepitError("x").to_wire()
ENDLESS: dict[str, Any] = dict(GOOD)
ENDLESS["cause"] = ENDLESS


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        1,
        [],
        {},
        *({k: v for k, v in GOOD.items() if k != field} for field in GOOD if field != "cause"),
        *({**GOOD, field: object()} for field in GOOD),
        {**GOOD, "outcome": "maybe"},
        {**GOOD, "cause": {}},
        {**GOOD, "code": [], "details": None},
        ENDLESS,
    ],
)
def test_a_malformed_error_is_a_protocol_error(malformed: Any) -> None:
    with pytest.raises(ProtocolError):
        error_from_wire(malformed)


def test_a_hostile_builtin_name_is_ignored() -> None:
    for name in ("SystemExit", "eval", "os.system", 3, None, ["ValueError"]):
        wire = {**RemoteError.of("X", "m").to_wire(), "details": {"builtin": name}}
        assert type(error_from_wire(wire)) is RemoteError
