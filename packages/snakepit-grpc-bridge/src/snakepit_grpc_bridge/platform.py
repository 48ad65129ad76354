"""The composition root: one object that starts and stops everything, in order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from snakepit import Pool, PythonAdapter
from snakepit.errors import ConfigurationError, PoolClosed, PoolStartFailed
from snakepit_grpc_bridge.dspy.host import DspyService
from snakepit_grpc_bridge.errors import BridgeError
from snakepit_grpc_bridge.host_functions import host_functions
from snakepit_grpc_bridge.lm.catalog import resolve
from snakepit_grpc_bridge.lm.service import KEY_VARIABLES, LmService, LmSettings
from snakepit_grpc_bridge.sessions import SessionService
from snakepit_grpc_bridge.settings import Settings
from snakepit_grpc_bridge.tools import ToolService
from snakepit_grpc_bridge.variables import VariableService

__all__ = ["Platform"]

_PROGRAM_WORKER = "snakepit_grpc_bridge.dspy.worker:ProgramWorker"


class Platform:
    """Everything that runs: sessions, variables, tools, the language model and the workers.

    Use it in ``async with``; it belongs to the event loop it is entered in, and is entered once.
    Entering starts the processes of the model and of the programs at the same time.

    Attributes:
        settings: what it runs with.
        sessions: starts and closes sessions.
        variables: typed variables of sessions, and global ones.
        tools: functions of the host that programs can call.
        dspy: runs DSPy programs.
        lm: the language model.

    Raises:
        ModelNotFound: when made: the model is unknown or its file is missing.
        ConfigurationError: when made or on entering: a package that is needed is not installed.
        PoolStartFailed: on entering: the workers don't come up; the cause says why. Nothing is left
            running.

    Example::

        async with Platform(Settings(model="embedded", workers=2)) as platform:
            result = await platform.dspy.predict("question -> answer", {"question": "2 + 2?"})
            print(result["answer"])
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings if settings is not None else Settings.load()
        model = resolve(self.settings.model, api_base=self.settings.api_base)
        self.sessions = SessionService()
        self.variables = VariableService(self.sessions)
        self.tools = ToolService(self.sessions)
        self.lm = LmService(LmSettings(model=model, python=self.settings.python))
        self._pool = Pool(
            PythonAdapter(
                _PROGRAM_WORKER,
                config={"import_allow": list(self.settings.import_allow)},
                python=self.settings.python,
                # Programs reach the model through the host: their processes need no keys.
                withhold=KEY_VARIABLES,
            ),
            size=self.settings.workers,
            name="programs",
            timeout=self.settings.timeout,
            host_functions={
                **self.lm.host_functions(),
                **host_functions(self.variables, self.tools),
            },
        )
        self.dspy = DspyService(
            pool=self._pool,
            sessions=self.sessions,
            variables=self.variables,
            settings=self.settings,
            model=model.for_workers(),
        )
        self._running: AsyncExitStack | None = None
        self._entered = False

    @property
    def pool(self) -> Pool:
        """The pool of the workers that run programs, for its ``stats()`` and ``workers()``."""
        return self._pool

    async def start(self) -> None:
        """Start everything; what ``async with`` does on entering.

        Raises:
            PoolClosed: it was started before.
        """
        if self._entered:
            raise PoolClosed("a platform is started once; make another Platform")
        self._entered = True
        async with AsyncExitStack() as stack:
            # The last is stopped first: programs need the model until their end.
            stack.push_async_callback(self.lm.aclose)
            stack.push_async_callback(self._pool.aclose)
            stack.push_async_callback(self.dspy.aclose)
            await self._start_processes()
            self._running = stack.pop_all()

    async def _start_processes(self) -> None:
        starts = [asyncio.create_task(start()) for start in (self.lm.start, self._pool.start)]
        try:
            await asyncio.gather(*starts)
        except PoolStartFailed as error:
            cause = _correctable(error)
            if cause is None:
                raise
            raise cause from None
        finally:
            # If one fails or all is cancelled, the other must be through before it is closed.
            for task in starts:
                task.cancel()
            await asyncio.gather(*starts, return_exceptions=True)

    async def aclose(self) -> None:
        """Let calls in flight finish for a while, then end everything. Idempotent."""
        stack, self._running = self._running, None
        if stack is not None:
            await stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _correctable(error: BaseException) -> BridgeError | ConfigurationError | None:
    """Return what the user can correct, such as a missing package, rather than where it came up."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, (BridgeError, ConfigurationError)):
        cause = cause.__cause__
    return cause
