"""The variables of a call's session, as code in a worker sees them. Worker side."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

import snakepit
from snakepit_grpc_bridge.call_state import current_state
from snakepit_grpc_bridge.errors import UnsupportedType, VariableConflict, VariableNotFound
from snakepit_grpc_bridge.variables.call_view import Found, State
from snakepit_grpc_bridge.variables.names import is_id, name_of
from snakepit_grpc_bridge.variables.types import TypeRegistry, infer_type
from snakepit_grpc_bridge.variables.types.handles import Handle
from snakepit_grpc_bridge.variables.types.plain import copy_plain
from snakepit_grpc_bridge.variables.types.secret import Secret
from snakepit_grpc_bridge.variables.worker_cache import VariableCache

__all__ = ["WorkerVariables", "variables"]

_GET: Final = "variables.get"
_PUT: Final = "variables.put"
_DELETE: Final = "variables.delete"
_EXISTS: Final = "variables.exists"
_LIST: Final = "variables.list"
MISSING: Final[Any] = object()


class WorkerVariables:
    """Reads and writes the variables of whatever session the current call belongs to.

    What is read by its name is kept. An id may mean what its name does not find, so the host is
    asked about it each time.
    """

    def __init__(self) -> None:
        self._types = TypeRegistry()
        self._cache = VariableCache()
        # Threads of a command read, too.
        self._lock = threading.Lock()

    def get(self, name: str, default: Any = MISSING) -> Any:
        """A variable's value; asks the host only for what is not kept."""
        call = snakepit.current_call()
        found = self._kept(call, name)
        if found is None:
            found = self._keep(name, call.call_host(_GET, _request(name, default)))
        return self._value(name, found, default)

    async def aget(self, name: str, default: Any = MISSING) -> Any:
        """As :meth:`get`, for async code."""
        call = snakepit.current_call()
        found = self._kept(call, name)
        if found is None:
            found = self._keep(name, await call.acall_host(_GET, _request(name, default)))
        return self._value(name, found, default)

    def put(self, name: str, value: Any) -> None:
        """Write a variable."""
        call = snakepit.current_call()
        self._keep(name_of(name), call.call_host(_PUT, _writing(name, value)))

    async def aput(self, name: str, value: Any) -> None:
        """As :meth:`put`, for async code."""
        call = snakepit.current_call()
        self._keep(name_of(name), await call.acall_host(_PUT, _writing(name, value)))

    def update(self, name: str, function: Callable[[Any], Any], default: Any) -> Any:
        """Replace a value by what ``function`` makes of it; what that is."""
        call = snakepit.current_call()
        while True:
            found = self._keep(name, call.call_host(_GET, _request(name, default)))
            with contextlib.suppress(VariableConflict):
                change = self._change(name, found, function, default)
                found = self._keep(name_of(name), call.call_host(_PUT, change))
                return self._value(name, found, default)

    async def aupdate(self, name: str, function: Callable[[Any], Any], default: Any) -> Any:
        """As :meth:`update`, for async code."""
        call = snakepit.current_call()
        while True:
            found = self._keep(name, await call.acall_host(_GET, _request(name, default)))
            with contextlib.suppress(VariableConflict):
                change = self._change(name, found, function, default)
                found = self._keep(name_of(name), await call.acall_host(_PUT, change))
                return self._value(name, found, default)

    def delete(self, name: str) -> bool:
        """Delete a variable; whether there was one."""
        deleted, *left = snakepit.current_call().call_host(_DELETE, {"name": name})
        self._keep(name_of(name), left)
        return bool(deleted)

    async def adelete(self, name: str) -> bool:
        """As :meth:`delete`, for async code."""
        deleted, *left = await snakepit.current_call().acall_host(_DELETE, {"name": name})
        self._keep(name_of(name), left)
        return bool(deleted)

    def exists(self, name: str) -> bool:
        """Whether reading finds a variable."""
        call = snakepit.current_call()
        found = self._kept(call, name)
        if found is None:
            return bool(call.call_host(_EXISTS, {"name": name}))
        return found.type is not None

    async def aexists(self, name: str) -> bool:
        """As :meth:`exists`, for async code."""
        call = snakepit.current_call()
        found = self._kept(call, name)
        if found is None:
            return bool(await call.acall_host(_EXISTS, {"name": name}))
        return found.type is not None

    def listed(self, pattern: str) -> list[dict[str, Any]]:
        """What reading finds, without the values."""
        return list(snakepit.current_call().call_host(_LIST, {"pattern": pattern}))

    async def alisted(self, pattern: str) -> list[dict[str, Any]]:
        """As :meth:`listed`, for async code."""
        return list(await snakepit.current_call().acall_host(_LIST, {"pattern": pattern}))

    # --- how ---------------------------------------------------------------------------------

    def _change(
        self, name: str, found: Found, function: Callable[[Any], Any], default: Any
    ) -> dict[str, Any]:
        value = self._value(name, found, default)
        if found.type is None:  # the caller's own, which may be the default of others, too
            value = copy.deepcopy(value)
        return {**_writing(name, function(value)), "expected": found.version}

    def _kept(self, call: snakepit.CallContext, name: str) -> Found | None:
        state = current_state(call)
        if state is None or is_id(name):
            return None
        with self._lock:
            return self._cache.get(name, state)

    def _keep(self, name: str, answer: Any) -> Found:
        type_name, value, version, keeps, *state = answer
        stored = self._stored(type_name, value)
        found = Found(type_name, stored, version, keeps, State(*state))
        if not is_id(name):
            with self._lock:
                self._cache.put(name, found)
        return found

    def _stored(self, type_name: str | None, plain: Any) -> Any:
        if type_name is None or plain is None:
            return plain
        if type_name == "secret":
            return Secret(plain)
        kind = self._types.find(type_name)
        # A type that the host has registered is not known here: its plain form is what there is.
        return plain if kind is None or kind.from_plain is None else kind.from_plain(plain)

    def _value(self, name: str, found: Found, default: Any) -> Any:
        if found.type is None:
            if default is MISSING:
                session = snakepit.current_call().session_id or "global"
                raise VariableNotFound.of(name, session, [])
            return default
        kind = self._types.find(found.type)
        if kind is None:
            return copy_plain(found.value)
        return found.value if kind.copy is None or found.value is None else kind.copy(found.value)


def _request(name: str, default: Any) -> Mapping[str, Any]:
    return {"name": name, "required": default is MISSING}


def _writing(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Secret):
        raise UnsupportedType("a secret is written by the host only; register a tool that does it")
    request = {"name": name, "value": value}
    # It travels as a map, so what it was has to be said.
    return {**request, "was": infer_type(value)} if isinstance(value, Handle) else request


#: Those of this process.
variables: Final = WorkerVariables()
