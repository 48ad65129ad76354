"""Which objects are adapters, and what keeps the others from being one."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest

from snakepit import CallOptions, Pool, WorkerSpec, validate_implementation
from snakepit.errors import AdapterInvalid

Args = Mapping[str, Any]


class Minimal:
    async def execute(self, worker: Any, command: str, args: Args, options: CallOptions) -> Any:
        return command, dict(args), options.session_id


class Complete(Minimal):
    async def init(self) -> None: ...
    async def start_worker(self, spec: WorkerSpec) -> object:
        return spec

    async def execute_stream(
        self, worker: Any, command: str, args: Args, options: CallOptions
    ) -> AsyncIterator[Any]:
        yield command

    async def terminate(self, reason: str) -> None: ...


class Bound:
    @staticmethod
    async def execute(worker: Any, command: str, args: Args, options: CallOptions) -> None: ...
    @classmethod
    async def init(cls) -> None: ...


class EverythingWrong:
    init = "no method"

    def execute(self, worker: Any, command: str) -> None: ...
    async def execute_stream(self, worker: Any, command: str, args: Args, options: Any) -> Any: ...
    async def start_worker(self) -> None: ...
    def terminate(self, reason: str, *, hard: bool) -> None: ...


def module_of(**functions: Any) -> types.ModuleType:
    module = types.ModuleType("adapter_module")
    module.__dict__.update(functions)
    return module


async def execute(worker: Any, command: str, args: Args, options: CallOptions) -> str:
    return f"module: {command}"


@pytest.mark.parametrize(
    "adapter",
    [Minimal(), Complete(), Bound(), Minimal, Complete, Bound, module_of(execute=execute)],
)
def test_what_satisfies_the_contract_has_no_problems(adapter: object) -> None:
    assert validate_implementation(adapter) == []


@pytest.mark.parametrize("adapter", [EverythingWrong(), EverythingWrong])
def test_everything_that_is_wrong_is_listed(adapter: object) -> None:
    problems = validate_implementation(adapter)
    assert [problem.partition(":")[0] for problem in problems] == [
        "execute has to be a coroutine function (async def)",
        "execute has to take 4 positional argument(s)",
        "execute_stream has to return an async iterator (async def with yield)",
        "init is no method but str",
        "start_worker has to take 1 positional argument(s)",
        "terminate has to be a coroutine function (async def)",
        "terminate has to take 1 positional argument(s)",
    ]


def test_a_module_is_checked_as_its_functions_are() -> None:
    def wrong(worker: Any) -> None: ...

    problems = validate_implementation(module_of(execute=wrong))
    assert [problem.partition(":")[0] for problem in problems] == [
        "execute has to be a coroutine function (async def)",
        "execute has to take 4 positional argument(s)",
    ]


@pytest.mark.parametrize("nothing", [object(), object, module_of()])
def test_only_execute_is_required(nothing: object) -> None:
    expected = "it has no method execute(worker, command, args, options)"
    assert validate_implementation(nothing) == [expected]


def test_a_stream_may_be_any_function_that_returns_an_async_iterator() -> None:
    class Returns(Minimal):
        def execute_stream(self, *of_the_contract: Any) -> AsyncIterator[Any]:
            return Complete().execute_stream(None, "x", {}, of_the_contract[3])

    class Yields(Minimal):
        def execute_stream(self, *of_the_contract: Any) -> Iterator[Any]:
            yield 1

    assert validate_implementation(Returns()) == []
    (problem,) = validate_implementation(Yields())
    assert problem.startswith("execute_stream has to return an async iterator")


def test_a_pool_refuses_an_adapter_with_the_full_list() -> None:
    with pytest.raises(AdapterInvalid) as caught:
        Pool(EverythingWrong())  # type: ignore[arg-type]
    assert caught.value.problems == validate_implementation(EverythingWrong())
    assert str(caught.value).startswith("EverythingWrong can't be used as an adapter")


@pytest.mark.parametrize("workers_code", ["module:Class", int, object()])
def test_who_gives_a_pool_the_workers_own_class_is_told_of_the_python_adapter(
    workers_code: object,
) -> None:
    with pytest.raises(AdapterInvalid, match=r"pass PythonAdapter\('package.module:Class'\)"):
        Pool(workers_code)  # type: ignore[arg-type]


def test_a_pool_refuses_a_class_even_if_its_instances_would_do() -> None:
    with pytest.raises(AdapterInvalid) as caught:
        Pool(Minimal)  # type: ignore[arg-type]
    assert caught.value.problems == ["it is a class; pass an instance of it"]
