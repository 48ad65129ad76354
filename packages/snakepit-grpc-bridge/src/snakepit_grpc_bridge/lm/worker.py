"""The language model as a program sees it, in the workers that run DSPy. Worker side only.

The model itself runs in the LM pool, or at a provider. Here is only a thin engine that sends each
request through the host and hands back the answer, so these processes hold no keys and no weights.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import snakepit
from snakepit.errors import CallTimeout, SnakepitError
from snakepit_grpc_bridge.lm.errors import LmCallFailed, ScriptExhausted

__all__ = ["HostEngine", "HostEngineAsync", "ScriptedEngine", "program_lm", "service_error"]


def program_lm(spec: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return ``(lm, adapter)`` for a program: what ``ModelSpec.for_workers`` described.

    The LM is made anew for each call, so that nothing a program does to it reaches another call; a
    script, which is used up in order, is one for the whole worker. ``adapter`` is None where DSPy's
    default is right. Caches, history and retries are off: the LM service has those.

    Example::

        lm, adapter = program_lm({"kind": "native", "name": "embedded", "small": True})
        with dspy.context(lm=lm, adapter=adapter):
            ...
    """
    import dspy

    engine, async_engine = _engines(json.dumps(spec, sort_keys=True))
    lm = dspy.LM(
        model=spec["name"], engine=engine, async_engine=async_engine, cache=False, num_retries=0
    )
    return lm, _small_adapter() if spec.get("small") else None


@functools.lru_cache(maxsize=16)
def _engines(spec_text: str) -> tuple[Any, Any]:
    spec = json.loads(spec_text)
    if spec["kind"] == "scripted":
        engine = ScriptedEngine(**spec["script"])
        return engine, _AsyncScript(engine)
    hints = _capabilities(spec["name"]) if spec["kind"] == "provider" else {}
    native = spec["kind"] == "native"
    return HostEngine(native, hints), HostEngineAsync(native, hints)


@functools.cache
def _small_adapter() -> Any:
    from snakepit_grpc_bridge.lm.adapter import EmbeddedAdapter

    return EmbeddedAdapter()


def _capabilities(model: str) -> dict[str, Any]:
    """What a provider's model can do, from DSPy's own tables; needs no key and no network.

    Providers that DSPy serves through litellm would import it here for seconds. They count as
    models without extras, which works with every one of them.
    """
    import dspy
    from dspy.clients.backend_selection import select_backend
    from dspy.clients.capabilities import capabilities

    known = dspy.LM(model, cache=False)
    if not select_backend(known).native:
        return {}
    able = capabilities(known)
    return {
        "supports_function_calling": able.function_calling,
        "supports_reasoning": able.reasoning,
        "supports_response_schema": able.response_schema,
        "supported_params": able.params,
    }


def service_error(error: BaseException) -> SnakepitError | None:
    """Return the platform's error behind one that DSPy made of it, or None.

    DSPy turns what an engine raises into errors of its own and keeps the original as the cause.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SnakepitError):
            return cause
        cause = cause.__cause__
    return None


# --- engines that call the host ------------------------------------------------------------------


class _Hints:
    """What DSPy asks an engine about its model. ``native`` is for the adapter of small models."""

    supports_function_calling = False
    supports_reasoning = False
    supports_response_schema = False
    supported_params: frozenset[str] = frozenset()

    def __init__(self, native: bool, hints: Mapping[str, Any]) -> None:
        self.native = native
        for name, value in hints.items():
            setattr(self, name, value)


class HostEngine(_Hints):
    """A DSPy engine for sync programs: requests go to the LM service through the running call."""

    def complete(self, request: Any) -> Any:
        """Send a canonical request, return the canonical response.

        Raises:
            LM15Error: the model failed, in DSPy's terms; the platform's error is its cause.
        """
        from dspy._vendor.lm15.serde import request_to_dict, response_from_dict

        try:
            plain = snakepit.current_call().call_host(
                "lm.complete", {"request": request_to_dict(request)}
            )
        except SnakepitError as error:
            raise _canonical(error) from error
        return response_from_dict(plain)

    def stream(self, request: Any) -> Iterator[Any]:
        """Send a canonical request, yield canonical stream events."""
        from dspy._vendor.lm15.serde import request_to_dict, stream_event_from_dict

        try:
            for event in snakepit.current_call().call_host_stream(
                "lm.stream", {"request": request_to_dict(request)}
            ):
                yield stream_event_from_dict(event)
        except SnakepitError as error:
            raise _canonical(error) from error

    def close(self) -> None:
        """Nothing is held open here."""


class HostEngineAsync(_Hints):
    """The same for async programs."""

    async def complete(self, request: Any) -> Any:
        """Send a canonical request, return the canonical response."""
        from dspy._vendor.lm15.serde import request_to_dict, response_from_dict

        try:
            plain = await snakepit.current_call().acall_host(
                "lm.complete", {"request": request_to_dict(request)}
            )
        except SnakepitError as error:
            raise _canonical(error) from error
        return response_from_dict(plain)

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        """Send a canonical request, yield canonical stream events."""
        from dspy._vendor.lm15.serde import request_to_dict, stream_event_from_dict

        try:
            async for event in snakepit.current_call().acall_host_stream(
                "lm.stream", {"request": request_to_dict(request)}
            ):
                yield stream_event_from_dict(event)
        except SnakepitError as error:
            raise _canonical(error) from error

    async def aclose(self) -> None:
        """Nothing is held open here."""


def _canonical(error: SnakepitError) -> Exception:
    """Return the error of DSPy's engine contract that says the same."""
    from dspy import lm15

    classes = {
        "auth": lm15.AuthError,
        "billing": lm15.BillingError,
        "rate_limit": lm15.RateLimitError,
        "context_length": lm15.ContextLengthError,
        "invalid_request": lm15.InvalidRequestError,
        "unsupported": lm15.UnsupportedFeatureError,
        "timeout": lm15.TimeoutError,
        "server": lm15.ServerError,
        "transport": lm15.TransportError,
        "configuration": lm15.ConfigurationError,
    }
    if isinstance(error, CallTimeout):
        kind = "timeout"
    else:
        kind = error.kind if isinstance(error, LmCallFailed) else "unknown"
    made: Exception = classes.get(kind, lm15.LM15Error)(error.message)
    return made


# --- scripts -------------------------------------------------------------------------------------


class ScriptedEngine(_Hints):
    """A DSPy engine that answers from a script; see :class:`~.scripted.ScriptedModel`."""

    def __init__(self, responses: list[Any], matches: Mapping[str, Any]) -> None:
        super().__init__(native=False, hints={})
        self._responses = list(responses)
        self._matches = dict(matches)
        self._asked = 0

    def complete(self, request: Any) -> Any:
        """Return the next response of the script.

        Raises:
            LM15Error: the script is used up; ScriptExhausted is its cause.
        """
        from dspy.lm15 import Message, Response, Usage

        text = _rendered(self._next(request.messages[-1].text or ""))
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text),
            finish_reason="stop",
            usage=Usage(input_tokens=0, output_tokens=0),
        )

    def stream(self, request: Any) -> Iterator[Any]:
        """Yield the next response as stream events."""
        from dspy.lm15 import response_to_events

        yield from response_to_events(self.complete(request))

    def close(self) -> None:
        """Nothing is held open here."""

    def _next(self, asked: str) -> Any:
        self._asked += 1
        for piece, answer in self._matches.items():
            if piece in asked:
                return answer
        if self._responses:
            return self._responses.pop(0)
        error = ScriptExhausted(
            f"the scripted model was asked {self._asked} times and has no response left (the last "
            f"request ends with {asked[-80:]!r}); add responses, or a match for it",
            details={"asked": self._asked},
        )
        raise _canonical(error) from error


class _AsyncScript(_Hints):
    """The same script for async programs."""

    def __init__(self, script: ScriptedEngine) -> None:
        super().__init__(native=False, hints={})
        self._script = script

    async def complete(self, request: Any) -> Any:
        return self._script.complete(request)

    async def stream(self, request: Any) -> AsyncIterator[Any]:
        for event in self._script.stream(request):
            yield event

    async def aclose(self) -> None:
        """Nothing is held open here."""


def _rendered(answer: Any) -> str:
    """Write fields as DSPy's ChatAdapter reads them; text is a raw completion."""
    if isinstance(answer, str):
        return answer
    fields = [
        f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value)}"
        for name, value in answer.items()
    ]
    return "\n\n".join([*fields, "[[ ## completed ## ]]"])
