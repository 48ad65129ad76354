"""Which methods of a class are commands, and of what kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import wraps
from typing import Any

import pytest

import snakepit
from snakepit.errors import ConfigurationError
from snakepit.worker.registry import CommandKind, commands_of


class Kinds:
    @snakepit.command
    def plain(self) -> str:
        return "plain"

    @snakepit.command
    async def coroutine(self) -> str:
        return "coroutine"

    @snakepit.command
    def items(self) -> Iterator[int]:
        yield 1

    @snakepit.command
    async def async_items(self) -> AsyncIterator[int]:
        yield 1

    def hidden(self) -> None: ...


def test_only_marked_methods_are_commands_and_their_kind_is_how_they_are_written() -> None:
    kinds = {name: command.kind for name, command in commands_of(Kinds()).items()}
    assert kinds == {
        "plain": CommandKind.SYNC,
        "coroutine": CommandKind.ASYNC,
        "items": CommandKind.SYNC_STREAM,
        "async_items": CommandKind.ASYNC_STREAM,
    }


def test_which_kinds_stream() -> None:
    streams = {name for name, command in commands_of(Kinds()).items() if command.streams}
    assert streams == {"items", "async_items"}


def test_a_command_is_bound_to_its_object_and_the_method_stays_callable() -> None:
    class Counter:
        def __init__(self, start: int) -> None:
            self.value = start

        @snakepit.command
        def add(self, x: int) -> int:
            self.value += x
            return self.value

    counter = Counter(10)
    assert commands_of(counter)["add"].function(x=2) == 12
    assert counter.add(1) == 13


def test_names_and_options_come_from_the_mark() -> None:
    class Named:
        @snakepit.command(name="lm.generate", interruptible=False)
        def generate(self) -> None: ...
        @snakepit.command()
        def score(self) -> None: ...

    commands = commands_of(Named())
    assert {name: command.name for name, command in commands.items()} == {
        "lm.generate": "lm.generate",
        "score": "score",
    }
    assert not commands["lm.generate"].interruptible
    assert commands["score"].interruptible


def test_two_commands_of_one_name_are_refused() -> None:
    class Twice:
        @snakepit.command(name="work")
        def first(self) -> None: ...
        @snakepit.command(name="work")
        def second(self) -> None: ...

    with pytest.raises(ConfigurationError, match="Twice has two commands named 'work'; rename one"):
        commands_of(Twice())


@pytest.mark.parametrize("instance", [object(), type("Empty", (), {})()])
def test_a_class_without_commands_is_refused_and_told_how(instance: object) -> None:
    with pytest.raises(ConfigurationError, match="has no commands; mark methods with @snakepit"):
        commands_of(instance)


def test_static_and_class_methods_in_either_order_of_decorators() -> None:
    class Odd:
        factor = 3

        @snakepit.command
        @staticmethod
        def static_outside(x: int) -> int:
            return x

        @staticmethod
        @snakepit.command
        async def static_inside(x: int) -> int:
            return x

        @snakepit.command
        @classmethod
        def class_outside(cls, x: int) -> int:
            return cls.factor * x

        @classmethod
        @snakepit.command
        def class_inside(cls, x: int) -> Iterator[int]:
            yield cls.factor * x

    commands = commands_of(Odd())
    assert {name: command.kind for name, command in commands.items()} == {
        "static_outside": CommandKind.SYNC,
        "static_inside": CommandKind.ASYNC,
        "class_outside": CommandKind.SYNC,
        "class_inside": CommandKind.SYNC_STREAM,
    }
    assert commands["static_outside"].function(x=2) == 2
    assert commands["class_outside"].function(x=2) == 6
    assert list(commands["class_inside"].function(x=2)) == [6]


def test_commands_are_inherited_and_an_override_decides_for_itself() -> None:
    class Base:
        @snakepit.command
        def kept(self) -> str:
            return "base"

        @snakepit.command
        def changed(self) -> Any:
            return "base"

        @snakepit.command
        def withdrawn(self) -> None: ...

    class Derived(Base):
        @snakepit.command
        async def changed(self) -> str:
            return "derived"

        def withdrawn(self) -> None: ...

    commands = commands_of(Derived())
    assert sorted(commands) == ["changed", "kept"]
    assert commands["changed"].kind is CommandKind.ASYNC


def test_a_mark_below_another_decorator_counts() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return inner

    class Decorated:
        @logged
        @snakepit.command(name="work")
        def method(self) -> str:
            return "done"

    assert commands_of(Decorated())["work"].function() == "done"


def test_looking_for_commands_runs_no_property() -> None:
    class Careful:
        @property
        def expensive(self) -> None:
            raise AssertionError("a property was evaluated")

        @snakepit.command
        def work(self) -> None: ...

    assert list(commands_of(Careful())) == ["work"]
