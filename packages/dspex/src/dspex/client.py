"""The platform's two faces: `AsyncClient` for programs with an event loop, `Client` for any."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self, Unpack

from dspex.errors import ConfigurationError, PoolClosed
from dspex.face import Workspace, sync
from dspex.prediction import Prediction
from dspex.sessions import (
    AsyncSession,
    Session,
    generate_temp_session_id,
)
from dspex.tools import ToolDecorator, ToolSpec
from dspex.workspace import MISSING, AsyncWorkspace, Signature, Timeout
from snakepit import Health
from snakepit.loops.loop_thread import LoopThread
from snakepit_grpc_bridge import Platform, Settings
from snakepit_grpc_bridge.sessions import SessionOptions


class HasId(Protocol):
    """A session handle."""

    @property
    def id(self) -> str:
        """The session's id."""


def gather_settings(settings: Settings | None, overrides: Mapping[str, Any]) -> Settings:
    """Return the settings that a caller means: an object, or single ones over the environment's.

    Raises:
        ConfigurationError: both are given, or one is unknown or has a wrong value.
    """
    if settings is None:
        return Settings.load(**overrides)
    if overrides:
        raise ConfigurationError(
            f"pass a Settings object or single settings ({', '.join(overrides)}), not both"
        )
    return settings


class AsyncClient(AsyncWorkspace, ToolDecorator):
    """The platform, for a program that has an event loop.

    Entering it starts the worker processes; leaving it stops them and everything they hold. It is
    entered once, and all calls are made on the loop it was entered on.

    Args:
        settings: what to run with; see `snakepit_grpc_bridge.Settings`.
        overrides: single settings, as in `AsyncClient(model="gguf:/models/x.gguf")`; they win over
            the environment (`DSPEX_MODEL`, ...) and the configuration file. Not with `settings`.

    Raises:
        ConfigurationError: a setting is unknown or has a wrong value.
        ModelNotFound: the model is unknown or its file is missing; says what to do.

    Example:
        >>> async with dspex.AsyncClient(workers=2) as client:
        ...     answer = await client.ask("What is the capital of France?")
    """

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        self.settings = gather_settings(settings, overrides)
        self._below = Platform(self.settings)
        self._decorated_tools: list[ToolSpec] | None = []  # None once it was opened

    async def open(self) -> Self:
        """Start the platform; what `async with` does on entering.

        Raises:
            PoolStartFailed: the workers don't come up; the cause says why.
            PoolClosed: it was open before; make another client.
        """
        decorated, self._decorated_tools = self._decorated_tools, None
        await self._below.start()
        for spec in decorated or ():
            await self._register(spec)
        return self

    async def close(self) -> None:
        """Stop the platform and end every process it started. Idempotent."""
        await self._below.aclose()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def platform(self) -> Platform:
        """The platform below, for what has no method here."""
        return self._below

    def health(self) -> Health:
        """Whether programs can run and reach the model, for the probes of what runs this process:
        `live` is False when only a new client helps, `ready` is True when it takes calls, `reasons`
        say why not. Whether a provider answers shows with a call alone.

        Example:
            >>> client.health()
            Health(live=True, ready=True, reasons=())
        """
        return self._below.health()

    @property
    def _session_id(self) -> None:
        return None

    def _decorated(self, spec: ToolSpec) -> None:
        if self._decorated_tools is None:
            raise ConfigurationError(
                f"@tool on {spec.name!r} came after the client was opened; decorate before "
                "`async with`, or use `await client.register_tool(...)`"
            )
        self._decorated_tools.append(spec)

    # --- sessions ------------------------------------------------------------------------------

    async def start_session(
        self, session_id: str | None = None, /, **options: Unpack[SessionOptions]
    ) -> AsyncSession:
        """Start a session and return its handle, also usable with `async with`.

        Args:
            session_id: an id of your own choice; a random one by default.
            metadata: plain data to keep with the session's record.
            ttl: seconds without use after which it expires; `None` for never.
            affinity: how its calls are bound to the worker that served it before: `"hint"`,
                `"strict_queue"` or `"strict_fail_fast"`.
            concurrency: how many of its calls run at a time; 1 by default, in order.
            isolation: `"session"` gives it a worker process of its own.
            quotas: how much it may hold (`snakepit_grpc_bridge.sessions.Quotas`).

        Raises:
            ValidationFailed: a session of that id is open.
            QuotaExceeded: there are as many sessions as there may be.
        """
        session = await self.platform.sessions.start(session_id, **options)
        return AsyncSession(self, session.id)

    async def find_session(self, session_id: str) -> AsyncSession:
        """The handle of a session that is open, such as one that a durable storage has kept.

        Raises:
            SessionNotFound, SessionExpired: it is not open.
        """
        session = await self.platform.sessions.get(session_id)
        return AsyncSession(self, session.id)

    async def stop_session(self, session: HasId | str) -> bool:
        """Close a session, its variables, tools and instances; say whether it was open.

        Example:
            >>> client.stop_session("order-17")
            False
        """
        return await self.platform.sessions.close(_id_of(session))

    @asynccontextmanager
    async def temp_session(self) -> AsyncIterator[AsyncSession]:
        """Work in one temporary session, which is closed when the block ends."""
        async with await self.start_temp_session() as session:
            yield session

    async def start_temp_session(self) -> AsyncSession:
        """Start a temporary session, which the caller closes."""
        return await self.start_session(generate_temp_session_id())

    async def predict_with_session(
        self,
        session: HasId | str,
        signature: Signature,
        inputs: Mapping[str, Any],
        *,
        config: Mapping[str, Any] | None = None,
        timeout: Timeout = None,
    ) -> Prediction:
        """Run `predict` in a session: it sees that session's variables and tools.

        Raises:
            SessionNotFound: the session is closed or was never started.

        Example:
            >>> with client.start_session() as session:
            ...     inputs = {"country": "Italy"}
            ...     client.predict_with_session(session.id, "country -> capital", inputs).capital
            'Rome'
        """
        return await self._in(session).predict(signature, inputs, config=config, timeout=timeout)

    async def set_session_variable(self, session: HasId | str, name: str, value: Any) -> None:
        """Set a variable of a session, creating it if it is new.

        Example:
            >>> with client.start_session() as session:
            ...     client.set_session_variable(session.id, "limit", 3)
            ...     client.get_session_variable(session.id, "limit")
            3
        """
        await self._in(session).set_variable(name, value)

    async def get_session_variable(
        self, session: HasId | str, name: str, default: Any = MISSING
    ) -> Any:
        """Return a variable of a session, as `get_variable` does."""
        return await self._in(session).get_variable(name, default)

    async def get_or_create_global_session(self) -> str:
        """Return the id of the session that variables and tools of the client itself belong to."""
        return self._home

    async def clear_global_session(self) -> None:
        """Remove every global variable and tool."""
        await self.platform.sessions.clear_global()

    def _in(self, session: HasId | str) -> AsyncSession:
        return AsyncSession(self, _id_of(session))


class Client(Workspace):
    """The platform, for a program without an event loop: a script, a notebook, a thread.

    The worker processes start with the client and end with it: on `close()`, at the end of its
    `with` block, when it is garbage collected, and at the latest when the interpreter exits. It may
    be used from several threads at once. Ctrl-C during a call cancels that call. It works beside
    a running event loop too (a notebook has one), but a call blocks that loop while it waits.

    The arguments and errors are those of `AsyncClient`.

    Example:
        >>> with dspex.Client(model="embedded") as client:
        ...     client.ask("What is the capital of France?")
        'Paris'
    """

    _behind: AsyncClient

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        behind = AsyncClient(settings, **overrides)
        loop = LoopThread("dspex-client", owner="client")
        super().__init__(behind, loop)
        # Holds no reference to this object, or it would never be collected.
        self._finalizer = weakref.finalize(self, _shut_down, behind, loop)
        try:
            loop.run(behind.open())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the platform and end every process it started. Idempotent."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """What the client runs with."""
        return self._behind.settings

    @property
    def closed(self) -> bool:
        """Whether the client is closed."""
        return not self._finalizer.alive

    def health(self) -> Health:
        """As `AsyncClient.health`; of a closed client, too."""
        with contextlib.suppress(PoolClosed):
            return self._loop.run(_health_of(self._behind))
        return self._behind.health()

    predict_with_session = sync(AsyncClient.predict_with_session)
    set_session_variable = sync(AsyncClient.set_session_variable)
    get_session_variable = sync(AsyncClient.get_session_variable)
    get_or_create_global_session = sync(AsyncClient.get_or_create_global_session)
    clear_global_session = sync(AsyncClient.clear_global_session)
    stop_session = sync(AsyncClient.stop_session)

    def start_session(
        self, session_id: str | None = None, /, **options: Unpack[SessionOptions]
    ) -> Session:
        """Start a session and return its handle, also usable with `with`, which closes it.

        The options and errors are those of `AsyncClient.start_session`: `metadata`, `ttl`,
        `affinity`, `concurrency`, `isolation` and `quotas`.

        Example:
            >>> with client.start_session(metadata={"user": "ada"}, ttl=600) as session:
            ...     session.set_variable("limit", 3)
            ...     session.list_variables()
            {'limit': 3}
        """
        return self._session(self._behind.start_session(session_id, **options))

    def find_session(self, session_id: str) -> Session:
        """The handle of a session that is open, such as one that a durable storage has kept.

        Raises:
            SessionNotFound, SessionExpired: it is not open.

        Example:
            >>> session = client.start_session("order-17")
            >>> client.find_session("order-17")
            <Session order-17>
            >>> session.close()
        """
        return self._session(self._behind.find_session(session_id))

    def temp_session(self) -> Session:
        """Start a temporary session, for a `with` block that closes it when it ends.

        Example:
            >>> with client.temp_session() as session:
            ...     dspex.is_temp_session(session.id)
            True
        """
        return self._session(self._behind.start_temp_session())

    def _session(self, starting: Coroutine[Any, Any, AsyncSession]) -> Session:
        return Session(self._loop.run(starting), self._loop)


async def _health_of(client: AsyncClient) -> Health:
    return client.health()


def _shut_down(behind: AsyncClient, loop: LoopThread) -> None:
    """Close a client and its loop thread, from whichever thread gets here."""
    if not loop.usable:
        return
    if loop.is_current:  # collected while the loop thread ran: it can't wait for itself
        loop.start_soon(_close_and_stop(behind, loop))
        return
    try:
        loop.run(behind.close())
    finally:
        loop.stop()


async def _close_and_stop(behind: AsyncClient, loop: LoopThread) -> None:
    try:
        await behind.close()
    finally:
        loop.stop()


def _id_of(session: HasId | str) -> str:
    return session if isinstance(session, str) else session.id
