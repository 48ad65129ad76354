"""The language model as a service: a pool of its own, and what programs call. Host side."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import snakepit
from snakepit.errors import ConfigurationError, PoolStartFailed
from snakepit_grpc_bridge.errors import BridgeError, ModelNotFound
from snakepit_grpc_bridge.lm.catalog import ModelKind, ModelSpec
from snakepit_grpc_bridge.lm.prompts import questions_head

__all__ = ["KEY_VARIABLES", "LmService", "LmSettings"]


def _in_any_case(pattern: str) -> str:
    """Return a pattern that also matches in lower case; names are compared exactly."""
    return "".join(f"[{c}{c.lower()}]" if c.isalpha() else c for c in pattern)


#: Variables that look like secrets, as patterns. The process that talks to a provider gets them all
#: the same; those that run programs or a local model don't.
KEY_VARIABLES = tuple(
    _in_any_case(pattern)
    for pattern in (
        *("*API_KEY*", "*APIKEY*", "*ACCESS_KEY*", "*ACCESSKEY*", "*PRIVATE_KEY*"),
        *("TOKEN", "*_TOKEN", "*SECRET*", "*CREDENTIAL*", "*_PAT"),
        *("*PASSWORD*", "*PASSWD*", "*PASSPHRASE*", "*_PWD"),
    )
)

#: A prompt is read in batches of up to about a second, and only between them can a call stop.
_NATIVE_GRACE_S = 2.0

#: Requests to a provider that may be on their way at a time; further ones wait.
_PROVIDER_CALLS = 32


@dataclass(frozen=True, kw_only=True)
class LmSettings:
    """What an :class:`LmService` runs with.

    Attributes:
        model: the model, as ``catalog.resolve`` found it.
        python: the interpreter of the engine's process; None is the host's own.
    """

    model: ModelSpec
    python: str | None = None


class LmService:
    """Runs the engine of one model in a pool named "lm"; all program workers share it.

    A local model answers one request at a time, a provider's many. The engine's process dies and
    comes back like any worker; a request that it had fails with WorkerLost. A scripted model has no
    engine: it answers inside the program workers. Nor has "none": requests fail.

    Raises:
        ConfigurationError: when made: the package that the engine needs is not installed.

    Example::

        service = LmService(LmSettings(model=resolve("embedded")))
        await service.start()
        pool = Pool(adapter, host_functions=service.host_functions())
    """

    def __init__(self, settings: LmSettings) -> None:
        self.model = settings.model
        self._pool: snakepit.Pool | None = None
        if settings.model.kind is ModelKind.NATIVE:
            self._pool = _native_pool(settings)
        elif settings.model.kind is ModelKind.PROVIDER:
            self._pool = _provider_pool(settings)

    @property
    def pool(self) -> snakepit.Pool | None:
        """The engine's pool, for its ``stats()`` and ``workers()``; None where there is none."""
        return self._pool

    async def start(self) -> None:
        """Start the engine and load the model; returns when it can answer.

        Raises:
            ModelUnreadable: the engine can't load the model's file.
            ConfigurationError: a package is missing, or DSPy refuses the model's name.
            PoolStartFailed: the engine's process does not come up for another reason.
        """
        if self._pool is None:
            return
        try:
            await self._pool.start()
        except PoolStartFailed as error:
            # The model is what the user named; that it runs in a pool is no news to them.
            cause = error.__cause__
            while cause is not None:
                if isinstance(cause, (BridgeError, ConfigurationError)):
                    raise cause from None
                cause = cause.__cause__
            raise

    async def aclose(self) -> None:
        """Let requests in flight finish for a while, then end the engine. Idempotent."""
        if self._pool is not None:
            await self._pool.aclose()

    def host_functions(self) -> Mapping[str, Callable[..., Any]]:
        """Return what program workers call, for their pool: ``lm.complete`` and ``lm.stream``.

        Both take a canonical request as plain data. A request has as much time as the call of the
        program that makes it.
        """
        if self.model.kind is ModelKind.NONE:
            return {"lm.complete": _refuse, "lm.stream": _refuse_stream}
        pool = self._pool
        if pool is None:
            return {}

        async def complete(call: snakepit.HostCall, request: Mapping[str, Any]) -> Any:
            return await pool.execute("complete", {"request": request}, timeout=_time_of(call))

        async def stream(call: snakepit.HostCall, request: Mapping[str, Any]) -> AsyncIterator[Any]:
            events = pool.execute_stream("stream", {"request": request}, timeout=_time_of(call))
            async for event in events:
                yield event

        return {"lm.complete": complete, "lm.stream": stream}


async def _refuse(_call: snakepit.HostCall, **_request: object) -> NoReturn:
    raise ModelNotFound(
        "a program asks a language model, and this platform was started without one "
        "(model='none'); start it with model='embedded', or with another one"
    )


async def _refuse_stream(call: snakepit.HostCall, **request: object) -> AsyncIterator[Any]:
    yield await _refuse(call, **request)


def _time_of(call: snakepit.HostCall) -> float | None:
    remaining = call.remaining()
    # A limit is above zero; what is over will be ended by the program's own deadline.
    return None if remaining is None else max(remaining, 0.001)


def _native_pool(settings: LmSettings) -> snakepit.Pool:
    _require(settings, "xllamacpp", "local models", "dspex[embedded]")
    adapter = snakepit.PythonAdapter(
        "snakepit_grpc_bridge.lm.worker_native:NativeEngine",
        config={
            "path": str(settings.model.path),
            "read_ahead": questions_head() if settings.model.small else None,
        },
        python=settings.python,
        withhold=KEY_VARIABLES,
    )
    return snakepit.Pool(adapter, size=1, name="lm", cancel_grace=_NATIVE_GRACE_S)


def _provider_pool(settings: LmSettings) -> snakepit.Pool:
    _require(settings, "dspy", "providers' models", "snakepit-grpc-bridge[dspy]")
    adapter = snakepit.PythonAdapter(
        "snakepit_grpc_bridge.lm.worker_provider:ProviderEngine",
        config={"model": settings.model.name, "api_base": settings.model.api_base},
        python=settings.python,
    )
    return snakepit.Pool(adapter, size=1, name="lm", concurrency=_PROVIDER_CALLS)


def _require(settings: LmSettings, package: str, what: str, extra: str) -> None:
    # Another interpreter's packages can't be seen from here; its worker says so when it starts.
    if settings.python is None and importlib.util.find_spec(package) is None:
        raise ConfigurationError(
            f"{what} need the package {package}, which is not installed: pip install '{extra}'",
            details={"package": package},
        )
