"""The tools of a call's session, as code in a worker sees them. Worker side."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import snakepit
from snakepit_grpc_bridge.call_state import current_state
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.schema import Schema
from snakepit_grpc_bridge.variables.call_view import State

__all__ = ["WorkerTools", "tools"]

_MOST_SCHEMAS: Final = 1000


class WorkerTools:
    """Calls the tools of whatever session the current call belongs to.

    What a tool takes is asked for once, and parameters are checked before they are sent.
    """

    def __init__(self) -> None:
        self._schemas: dict[tuple[str, str], tuple[State, Schema]] = {}
        # Threads of a command call tools, too. To look something up is a single step.
        self._lock = threading.Lock()

    def call(self, name: str, parameters: Mapping[str, Any]) -> Any:
        """Call a tool and return its result."""
        call = snakepit.current_call()
        return call.call_host("tools.call", self._request(call, name, parameters))

    def stream(self, name: str, parameters: Mapping[str, Any]) -> Iterator[Any]:
        """Iterate over what a tool yields."""
        call = snakepit.current_call()
        yield from call.call_host_stream("tools.stream", self._request(call, name, parameters))

    async def acall(self, name: str, parameters: Mapping[str, Any]) -> Any:
        """As :meth:`call`, for async code."""
        call = snakepit.current_call()
        return await call.acall_host("tools.call", await self._arequest(call, name, parameters))

    async def astream(self, name: str, parameters: Mapping[str, Any]) -> AsyncIterator[Any]:
        """As :meth:`stream`, for async code."""
        call = snakepit.current_call()
        request = await self._arequest(call, name, parameters)
        async for item in call.acall_host_stream("tools.stream", request):
            yield item

    # --- what a tool takes -----------------------------------------------------------------------

    def _request(
        self, call: snakepit.CallContext, name: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        given = self._check(call, name, parameters)
        if given is None:
            described = call.call_host("tools.describe", {"name": name})
            given = self._keep(call, name, described).check(name, parameters)
        return {"name": name, "parameters": given}

    async def _arequest(
        self, call: snakepit.CallContext, name: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        given = self._check(call, name, parameters)
        if given is None:
            described = await call.acall_host("tools.describe", {"name": name})
            given = self._keep(call, name, described).check(name, parameters)
        return {"name": name, "parameters": given}

    def _check(
        self, call: snakepit.CallContext, name: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """The parameters, checked by what is known of a tool; None if that is not enough.

        What is known may be old. If the parameters fit, that does no harm, since the host checks
        them as well.
        """
        state = current_state(call)
        if state is None:
            return None
        kept = self._schemas.get((state.session, name))
        if kept is None:
            return None
        read_at, schema = kept
        try:
            return schema.check(name, parameters)
        except ValidationFailed:
            if read_at.covers(state):
                raise
            return None

    def _keep(self, call: snakepit.CallContext, name: str, described: Any) -> Schema:
        schema = Schema.from_description(described)
        # It was read later than the call was made, so it holds for this state, too.
        state = current_state(call)
        if state is not None:
            with self._lock:
                self._schemas[state.session, name] = state, schema
                if len(self._schemas) > _MOST_SCHEMAS:
                    del self._schemas[next(iter(self._schemas))]
        return schema


#: Those of this process.
tools: Final = WorkerTools()
