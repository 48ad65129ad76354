"""The engine of providers' models: DSPy's own LM in a worker of the LM pool. Worker side only.

It is the one process that has the providers' keys, from its environment. They are in no argument,
no message and no log: errors carry what DSPy says about a failure, which names variables, not
values.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import snakepit
from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.lm.errors import LmCallFailed

__all__ = ["ProviderEngine"]

#: Tries again after failures that DSPy knows to pass (busy, unreachable) and that gave no output;
#: the only place where a request is repeated, and always inside the call's own time.
_RETRIES = 2

#: DSPy's error codes, in the words of :class:`LmCallFailed`.
_KINDS = {
    "ambiguous_model": "configuration",
    "auth": "auth",
    "billing": "billing",
    "configuration": "configuration",
    "context_length": "context_length",
    "context_window_exceeded": "context_length",
    "invalid_request": "invalid_request",
    "not_configured": "configuration",
    "rate_limit": "rate_limit",
    "server": "server",
    "timeout": "timeout",
    "transport": "transport",
    "unknown_model": "configuration",
    "unsupported_feature": "unsupported",
    "unsupported_model": "invalid_request",
}


class ProviderEngine:
    """Sends canonical requests to a provider; many at a time.

    Args:
        model: the provider's model as ``dspy.LM`` takes it.
        api_base: the address of a server that speaks the provider's protocol.

    Raises:
        ConfigurationError: DSPy is not installed here, or doesn't take the model's name.

    Example::

        adapter = snakepit.PythonAdapter(
            "snakepit_grpc_bridge.lm.worker_provider:ProviderEngine",
            config={"model": "openai/gpt-5-mini"},
        )
    """

    def __init__(self, model: str, api_base: str | None = None) -> None:
        dspy = _import_dspy()
        options = {} if api_base is None else {"api_base": api_base}
        try:
            self._lm = dspy.LM(model, cache=False, num_retries=_RETRIES, **options)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"DSPy refuses the model {model!r}: {error}") from error
        self._model = model

    @classmethod
    def warm(cls) -> None:
        """Import DSPy before the workers are made."""
        _import_dspy()

    @snakepit.command
    async def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a canonical request, given and returned as plain data.

        Raises:
            LmCallFailed: the provider refused or failed it.
        """
        from dspy._vendor.lm15.serde import response_to_dict

        response = await self._ask(request)
        plain: dict[str, Any] = response_to_dict(response)
        return plain

    @snakepit.command
    async def stream(self, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Answer a canonical request as a stream of canonical events.

        Raises:
            LmCallFailed: as ``complete``.
        """
        from dspy._vendor.lm15.serde import request_from_dict, stream_event_to_dict
        from dspy.clients.engines.stream_guard import achecked_stream
        from dspy.clients.execution import _engine, prepare
        from dspy.lm15 import LM15Error
        from dspy.utils.exceptions import LMError

        wanted = request_from_dict({**request, "model": self._model})
        try:
            # The steps of LM.acall up to where it would reduce the events to one response.
            call = prepare(self._lm, wanted, None, {}, asynchronous=True)
            backend, canonical, provider = _engine(self._lm, call, True)
            async for event in achecked_stream(backend.stream(canonical), provider=provider):
                yield stream_event_to_dict(event)
        except (LMError, LM15Error) as error:
            raise _failure(error, self._model) from error

    async def _ask(self, request: Mapping[str, Any]) -> Any:
        import dspy
        from dspy._vendor.lm15.serde import request_from_dict
        from dspy.utils.exceptions import LMError

        wanted = request_from_dict({**request, "model": self._model})
        try:
            # A list of its own: DSPy would keep the prompts of all sessions.
            with dspy.context(disable_history=True):
                return await self._lm.acall(wanted)
        except LMError as error:
            raise _failure(error, self._model) from error


def _import_dspy() -> Any:
    # Before the import, which reads them: a price list from the network, a folder for a cache.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("DSPY_CACHEDIR", f"{os.devnull}/dspy-caches-are-off")
    try:
        import dspy
    except ImportError as error:
        raise ConfigurationError(
            f"providers' models need DSPy, which can't be imported by the workers ({error}); "
            "install it in their environment: pip install 'snakepit-grpc-bridge[dspy]'"
        ) from error
    return dspy


def _failure(error: Exception, model: str) -> LmCallFailed:
    """Return the platform's error for one of DSPy's, either of its two families."""
    code = str(getattr(error, "code", None) or "unknown")
    kind = _KINDS.get(code, "unknown")
    return LmCallFailed.of(
        kind,
        _told(error),
        model=model,
        provider=getattr(error, "provider", None),
        status=getattr(error, "status", None),
        retry_after=getattr(error, "retry_after", None),
    )


def _told(error: Exception) -> str:
    """Return what the user is told. DSPy's advice on keys is for code that makes its own models."""
    said = str(getattr(error, "message", None) or error).partition("\n\n  To fix:")[0]
    cause: BaseException | None = error
    while cause is not None and not getattr(cause, "env_keys", ()):
        cause = cause.__cause__
    if cause is None:
        return said
    variables = " or ".join(getattr(cause, "env_keys", ()))
    if getattr(cause, "code", None) == "not_configured":
        return f"no key was found; set {variables} in the environment"
    return f"{said}; check the key in {variables}"
