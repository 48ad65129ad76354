"""The composition root: one object that starts and stops everything, in order."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from snakepit import Health, Pool, PythonAdapter
from snakepit.errors import ConfigurationError, PoolClosed, PoolStartFailed
from snakepit_grpc_bridge.dspy.host import DspyService
from snakepit_grpc_bridge.errors import BridgeError
from snakepit_grpc_bridge.host_functions import host_functions
from snakepit_grpc_bridge.lm.catalog import resolve
from snakepit_grpc_bridge.lm.service import KEY_VARIABLES, LmService, LmSettings
from snakepit_grpc_bridge.program_pools import ProgramPools
from snakepit_grpc_bridge.python.host import PythonService
from snakepit_grpc_bridge.session_calls import SessionCalls
from snakepit_grpc_bridge.sessions import SessionService
from snakepit_grpc_bridge.settings import Settings
from snakepit_grpc_bridge.state import PLATFORM_SCHEMA
from snakepit_grpc_bridge.storage import open_storage
from snakepit_grpc_bridge.tools import ToolService
from snakepit_grpc_bridge.variables import VariableService
from snakepit_grpc_bridge.variables.access import VariableAccess
from snakepit_grpc_bridge.variables.types import TypeRegistry
from snakepit_grpc_bridge.variables.values import Values

__all__ = ["Platform"]

_log = logging.getLogger(__name__)
_PROGRAM_WORKER = "snakepit_grpc_bridge.dspy.worker:ProgramWorker"


class Platform:
    """Everything that runs: sessions, variables, tools, the language model and the workers.

    Use it in ``async with``; it belongs to the event loop it is entered in, and is entered once.
    Entering opens the storage, and starts the processes of the model and of the programs at the
    same time.

    Attributes:
        settings: what it runs with.
        sessions: starts and ends sessions.
        variables: typed variables of sessions, and global ones.
        tools: functions that programs can call, of the host or of the workers.
        python: calls functions in the workers.
        dspy: runs DSPy programs in the workers.
        lm: the language model.

    Raises:
        ModelNotFound: when made: the model is unknown or its file is missing.
        ConfigurationError: when made or on entering: a package that is needed is not installed.
        StorageUnavailable, StorageCorrupt: on entering: the storage can't be opened.
        PoolStartFailed: on entering: the workers don't come up; the cause says why. Nothing is left
            running.

    Example::

        async with Platform(Settings(model="embedded", workers=2)) as platform:
            result = await platform.dspy.predict("question -> answer", {"question": "2 + 2?"})
            print(result["answer"])
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings = settings if settings is not None else Settings.load()
        model = resolve(settings.model, api_base=settings.api_base)
        self._storage = open_storage(settings.storage, PLATFORM_SCHEMA)
        self.sessions = SessionService(
            self._storage,
            default_ttl=settings.session_ttl,
            max_sessions=settings.max_sessions,
        )
        values = Values(
            TypeRegistry(),
            secret_keys=settings.secret_keys,
            durable=settings.storage != "memory",
        )
        self._access = VariableAccess(self._storage, self.sessions, values)
        self.variables = VariableService(self._access)
        self.lm = LmService(LmSettings(model=model, python=settings.python))
        self._pools = ProgramPools(self._make_pool, settings.workers, self.sessions)
        calls = SessionCalls(self._pools, self.sessions, self._access, settings.timeout)
        self.tools = ToolService(self._storage, self.sessions, calls)
        self.python = PythonService(calls, settings.import_allow)
        self.dspy = DspyService(
            calls=calls,
            pools=self._pools,
            sessions=self.sessions,
            settings=settings,
            model=model.for_workers(),
        )
        self._running: AsyncExitStack | None = None
        self._entered = False

    def _make_pool(self, name: str, size: int) -> Pool:
        settings = self.settings
        adapter = PythonAdapter(
            _PROGRAM_WORKER,
            config={"import_allow": list(settings.import_allow)},
            python=settings.python,
            # Programs reach the model and the state through the host: they need no keys.
            withhold=(*KEY_VARIABLES, "DSPEX_STORAGE"),
        )
        # Looked up when it is called: the services are made after the pools.
        functions = {**self.lm.host_functions(), **host_functions(self._access, lambda: self.tools)}
        return Pool(
            adapter, size=size, name=name, timeout=settings.timeout, host_functions=functions
        )

    @property
    def pool(self) -> Pool:
        """The pool of the workers that sessions share, for its ``stats()`` and ``workers()``."""
        return self._pools.shared

    def health(self) -> Health:
        """Whether programs can run and reach the model; for the probes of what runs this process.

        It is the health of two pools together, that of the programs and that of the model; each
        reason begins with the name of its pool. Not seen: whether a provider or a database answers.

        Example::

            status = 200 if platform.health().ready else 503
        """
        pools = [pool for pool in (self.pool, self.lm.pool) if pool is not None]
        found = {pool.name: pool.health() for pool in pools}
        return Health(
            live=all(health.live for health in found.values()),
            ready=all(health.ready for health in found.values()),
            reasons=tuple(f"{n}: {why}" for n, health in found.items() for why in health.reasons),
        )

    async def start(self) -> None:
        """Start everything; what ``async with`` does on entering.

        Raises:
            PoolClosed: it was started before.
        """
        if self._entered:
            raise PoolClosed("a platform is started once; make another Platform")
        self._entered = True
        async with AsyncExitStack() as stack:
            # The last is stopped first: programs need the model until their end, and all of them
            # the storage.
            await stack.enter_async_context(self._storage)
            await self.sessions.open_global()
            stack.push_async_callback(self.sessions.aclose)
            stack.push_async_callback(self.tools.aclose)
            stack.push_async_callback(self._access.aclose)
            stack.push_async_callback(self.lm.aclose)
            stack.push_async_callback(self._pools.aclose)
            stack.push_async_callback(self.dspy.aclose)
            await self._start_processes()
            self.sessions.start_sweeping()
            self._running = stack.pop_all()
        _log.debug(
            "platform started: sessions, variables, tools; workers: %d", len(self.pool.workers())
        )

    async def _start_processes(self) -> None:
        starts = [asyncio.create_task(start()) for start in (self.lm.start, self._pools.start)]
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
