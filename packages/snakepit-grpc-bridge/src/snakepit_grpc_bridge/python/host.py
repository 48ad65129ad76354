"""The service that calls Python functions in worker processes. Host side."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from snakepit_grpc_bridge.arguments import call_arguments
from snakepit_grpc_bridge.dspy.paths import check_path
from snakepit_grpc_bridge.session_calls import SessionCalls, Timeout

__all__ = ["PythonService"]


class PythonService:
    """Calls functions in workers. One for each platform; use it on the platform's loop.

    A path is ``"package.module.function"`` or ``"package.module:function"``, inside the setting
    ``import_allow``. A call without a session runs in a temporary one. The function sees its
    session's variables and tools (``snakepit_grpc_bridge.worker``). It may be async; it runs on the
    worker's main thread or its event loop. What the pool raises can come from every method:
    CallTimeout, WorkerLost, ...; and SessionNotFound for a session that is not open.
    """

    def __init__(self, calls: SessionCalls, import_allow: Sequence[str]) -> None:
        self._calls = calls
        self._allowed = tuple(import_allow)

    async def call(
        self,
        path: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: Timeout = None,
        idempotent: bool = False,
    ) -> Any:
        """Call a function and return its result.

        Args:
            path: where the function is.
            args: its positional arguments; plain data and arrays.
            kwargs: its keyword arguments.
            session_id: the session that the call belongs to.
            timeout: its whole budget in seconds, waiting included; the platform's by default.
            idempotent: running it twice does no harm.

        Raises:
            NotAllowed: the path is outside ``import_allow``. Nothing was sent.
            ValidationFailed: there is no such function.
            EncodeError: an argument or the result is no data that travels; the path says which.
            RemoteError: it raised; the error is also the builtin it stands for.

        Example::

            async with Platform(Settings(import_allow=("dspy", "statistics"))) as platform:
                await platform.python.call("statistics.mean", [[1, 2, 3]])
        """
        arguments = self._arguments(path, args, kwargs)
        async with self._calls.begin(session_id, timeout) as call:
            arguments["state"], _, _ = await call.view()
            return await call.execute("python.call", arguments, idempotent=idempotent)

    async def stream(
        self,
        path: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: Timeout = None,
    ) -> AsyncGenerator[Any]:
        """Iterate over what a generator function yields. Leaving the loop early stops it.

        The arguments and errors are those of :meth:`call`.
        """
        arguments = self._arguments(path, args, kwargs)
        async with self._calls.begin(session_id, timeout) as call:
            arguments["state"], _, _ = await call.view()
            async with aclosing(call.stream("python.stream", arguments)) as items:
                async for item in items:
                    yield item

    def _arguments(
        self, path: str, args: Sequence[Any], kwargs: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        dotted = path.replace(":", ".", 1) if isinstance(path, str) else path
        check_path(dotted, self._allowed)
        return {"path": path, **call_arguments(args, kwargs)}
