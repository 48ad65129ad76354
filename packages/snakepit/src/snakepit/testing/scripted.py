"""An adapter that answers from a script, in the test's own process: no workers, no waiting.

For tests of code that takes a pool. The pool around it is the real one: it queues, times out,
replaces dead workers and counts.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from snakepit.adapters.adapter import CallOptions, WorkerSpec
from snakepit.adapters.adapter_worker import AdapterWorker
from snakepit.errors import (
    ConfigurationError,
    Outcome,
    StreamingNotSupported,
    UnknownCommand,
    WorkerLost,
)
from snakepit.testing.waiting import PATIENCE
from snakepit.wire.codec import decode, encode


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a call with ``value``; when ``after`` is given, only once that event is set."""

    value: Any = None
    after: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer a call with an error, as if the command had raised it."""

    error: Exception
    after: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Die:
    """End the worker that has the call; its other calls are lost too, and the pool replaces it.

    ``signal`` is what the error says it died of; with ``exit_code`` it exited.
    """

    signal: str | None = "SIGKILL"
    exit_code: int | None = None
    after: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """Yield ``items``, then end; or go on with ``then``, which fails or kills."""

    items: Sequence[Any]
    then: Fail | Die | None = None
    after: asyncio.Event | None = None


Step = Reply | Fail | Die | Stream
Script = Mapping[str, Sequence[Step] | Callable[..., Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCall:
    """A call as a worker got it. ``timeout``: the seconds that were left, or None."""

    worker_id: str
    command: str
    args: Mapping[str, Any]
    session_id: str | None
    timeout: float | None


class ScriptedAdapter:
    """Satisfies the :class:`~snakepit.Adapter` protocol with answers that the test has written.

    Args:
        script: for each command what its calls get: a sequence of steps (:class:`Reply`,
            :class:`Fail`, :class:`Stream`, :class:`Die`), one a call, in the order in which the
            calls arrive; or a function for any number of calls, sync, async or an async generator,
            which is called with the call's arguments.
        starts: what the first starts of workers get, in order: an error, or None for success.
            Later ones succeed.

    Arguments, results and items pass through the codec, so that a value which could not travel to a
    process does not travel here.

    Attributes:
        calls: every call that reached a worker, in order.
        workers: the living workers by id.

    >>> from snakepit import Pool
    >>> from snakepit.testing import Die, Fail, Reply, ScriptedAdapter
    >>> script = ScriptedAdapter({"greet": [Reply("Hello, Ada!"), Die(), Fail(ValueError("no"))]})
    >>> async with Pool(script, size=1) as pool:
    ...     print(await pool.execute("greet", {"name": "Ada"}))
    ...     for _ in range(2):
    ...         try:
    ...             await pool.execute("greet", {"name": "Bob"})
    ...         except snakepit.SnakepitError as error:
    ...             print(type(error).__name__, error.retryable)
    Hello, Ada!
    WorkerLost False
    RemoteValueError False
    >>> script.assert_done()
    >>> [call.args["name"] for call in script.calls]
    ['Ada', 'Bob', 'Bob']
    """

    def __init__(self, script: Script, *, starts: Sequence[Exception | None] = ()) -> None:
        self.calls: list[ReceivedCall] = []
        self.workers: dict[str, ScriptedWorker] = {}
        self._functions: dict[str, Callable[..., Any]] = {}
        self._steps: dict[str, deque[Step]] = {}
        for command, answers in script.items():
            if callable(answers):
                self._functions[command] = answers
            else:
                self._steps[command] = deque(_checked(command, answers))
        self._starts = deque(starts)
        self._unexpected: list[ReceivedCall] = []
        self._arrived = asyncio.Condition()

    def __repr__(self) -> str:
        return f"<ScriptedAdapter {len(self.calls)} calls, {len(self._unused())} steps left>"

    # --- looking -----------------------------------------------------------------------------

    async def called(self, command: str, times: int = 1, timeout: float = PATIENCE) -> ReceivedCall:
        """Wait until ``command`` has been called ``times`` times in all; return the last of these.

        Raises:
            TimeoutError: it was not, within ``timeout`` seconds; says what was called.
        """

        def arrived() -> list[ReceivedCall]:
            return [call for call in self.calls if call.command == command][:times]

        async with self._arrived:
            try:
                await asyncio.wait_for(
                    self._arrived.wait_for(lambda: len(arrived()) == times), timeout
                )
            except TimeoutError:
                raise TimeoutError(
                    f"{command!r} was called {len(arrived())} of {times} times within {timeout:g} s"
                    f"; all calls: {[call.command for call in self.calls]}"
                ) from None
            return arrived()[-1]

    def assert_done(self) -> None:
        """Check that every step was used, and no call came that the script had no step for.

        Raises:
            AssertionError: lists the steps and the calls.
        """
        problems = [f"not used: {command}: {step}" for command, step in self._unused()]
        problems += [f"not expected: {call}" for call in self._unexpected]
        if problems:
            raise AssertionError("the script and the calls differ:\n  " + "\n  ".join(problems))

    def _unused(self) -> list[tuple[str, Step]]:
        return [(command, step) for command, steps in self._steps.items() for step in steps]

    # --- the adapter ---------------------------------------------------------------------------

    async def start_worker(self, spec: WorkerSpec) -> ScriptedWorker:
        """A worker in this process, unless the script says that the start fails."""
        error = self._starts.popleft() if self._starts else None
        if error is not None:
            raise error
        worker = self.workers[spec.worker_id] = ScriptedWorker(self, spec.worker_id)
        return worker

    async def execute(
        self, worker: ScriptedWorker, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> Any:
        """Answer with the command's next step, or with what its function returns."""
        answer = await self._received(worker, command, args, options)
        if not isinstance(answer, Step):
            result = answer(**_travelled("args", dict(args)))
            if hasattr(result, "__aiter__"):
                raise _wrong_kind(command, "execute_stream")
            return _travelled("result", await result if inspect.isawaitable(result) else result)
        if isinstance(answer, Stream):
            raise _wrong_kind(command, "execute_stream")
        return await self._play(worker, answer)

    async def execute_stream(
        self, worker: ScriptedWorker, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> AsyncIterator[Any]:
        """Yield what the command's next step holds, or what its async generator yields."""
        answer = await self._received(worker, command, args, options)
        if isinstance(answer, Stream):
            await _passed(answer.after)
            for item in answer.items:
                yield _travelled("item", item)
            if answer.then is not None:
                await self._play(worker, answer.then)
            return
        if isinstance(answer, Fail | Die):
            await self._play(worker, answer)
        if isinstance(answer, Step) or not inspect.isasyncgenfunction(answer):
            raise _wrong_kind(command, "execute")
        async for item in answer(**_travelled("args", dict(args))):
            yield _travelled("item", item)

    async def _received(
        self, worker: ScriptedWorker, command: str, args: Mapping[str, Any], options: CallOptions
    ) -> Step | Callable[..., Any]:
        call = ReceivedCall(
            worker_id=worker.worker_id,
            command=command,
            args=_travelled("args", dict(args)),
            session_id=options.session_id,
            timeout=options.timeout,
        )
        async with self._arrived:
            self.calls.append(call)
            self._arrived.notify_all()
        if command in self._functions:
            return self._functions[command]
        if self._steps.get(command):
            return self._steps[command].popleft()
        self._unexpected.append(call)
        if command not in self._steps:
            raise UnknownCommand.of(command, [*self._functions, *self._steps])
        raise AssertionError(f"the script has no step left for {command!r}: {call}")

    async def _play(self, worker: ScriptedWorker, step: Reply | Fail | Die) -> Any:
        await _passed(step.after)
        if isinstance(step, Fail):
            raise step.error
        if isinstance(step, Die):
            worker.die(signal=step.signal, exit_code=step.exit_code)
            await asyncio.Event().wait()  # the death cancels this task
            raise AssertionError("a dead worker goes on")
        return _travelled("result", step.value)


class ScriptedWorker(AdapterWorker):
    """A worker of a :class:`ScriptedAdapter`; ``adapter.workers`` holds the living ones."""

    def __init__(self, adapter: ScriptedAdapter, worker_id: str) -> None:
        super().__init__(adapter, self, worker_id)
        self._scripted = adapter
        self._death: Die | None = None
        self._phase = "idle"

    def die(self, *, signal: str | None = "SIGKILL", exit_code: int | None = None) -> None:
        """Die now, with all calls; the pool is told as of a process. Once dead, it stays dead.

        Example::

            script.workers["default-1"].die()
        """
        if self._gone:
            return
        self._phase = "call" if self._tasks else "idle"
        self._death = Die(signal=None if exit_code is not None else signal, exit_code=exit_code)
        if self._events is not None:
            self._events.worker_dying(self.worker_id)
        self._end("crash")

    def kill(self, reason: str) -> None:
        if not self._gone:
            self._end(reason)

    async def _stop_in_order(self, patience: float) -> bool:
        return True

    def _end(self, reason: str) -> None:
        self._scripted.workers.pop(self.worker_id, None)
        super()._end(reason)

    def _lost_error(self, reason: str) -> WorkerLost:
        if self._death is None:
            return super()._lost_error(reason)
        return WorkerLost.of(
            worker_id=self.worker_id,
            pid=None,
            reason=reason,
            phase=self._phase,
            exit_code=self._death.exit_code,
            signal=self._death.signal,
            outcome=Outcome.UNKNOWN,
        )


async def _passed(event: asyncio.Event | None) -> None:
    if event is not None:
        await event.wait()


def _travelled(root: str, value: Any) -> Any:
    """The value as it would arrive in another process."""
    return decode(encode(value, root=root))


def _checked(command: str, steps: Sequence[Step]) -> Sequence[Step]:
    for step in steps:
        if not isinstance(step, Step):
            raise ConfigurationError(
                f"the script of {command!r} holds {step!r}; "
                "write Reply(...), Fail(...), Stream(...) or Die(...)"
            )
    return steps


def _wrong_kind(command: str, method: str) -> StreamingNotSupported:
    return StreamingNotSupported(
        f"the command {command!r} has to be called with {method}()", details={"command": command}
    )
