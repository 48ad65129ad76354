"""The variables of all sessions. Lives in the host, in memory."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from snakepit_grpc_bridge.errors import VariableExists, VariableNotFound
from snakepit_grpc_bridge.sessions import GLOBAL_SESSION, SessionService
from snakepit_grpc_bridge.variables.names import check_variable_name
from snakepit_grpc_bridge.variables.types import (
    copy_value,
    infer_type,
    validate_constraints,
    validate_value,
)

_log = logging.getLogger(__name__)

_MISSING: Final[Any] = object()


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """A variable as it was when it was read; changing what it holds changes nothing in the store.

    Attributes:
        session_id: the session it belongs to, "global" for those that every session sees.
        name: its name, unique in its session.
        type: one of ``supported_types()``.
        value: its value.
        version: 0 when created, one more with each write.
        created_at: when it was created, in UTC.
        updated_at: when it was last written, in UTC.
        constraints: what its values must keep.
        metadata: plain data of the caller's.
        inferred: whether the type was taken from the first value rather than declared.
    """

    session_id: str
    name: str
    type: str
    value: Any
    version: int
    created_at: datetime
    updated_at: datetime
    constraints: Mapping[str, Any]
    metadata: Mapping[str, Any]
    inferred: bool


class VariableService:
    """Creates, reads and writes variables. One for each platform; use it on the platform's loop.

    Reading in a session finds its own variable first, then the global one of that name. Writing
    touches the session's own alone. Every method raises SessionNotFound for a session that is not
    open.
    """

    def __init__(self, sessions: SessionService) -> None:
        self._sessions = sessions
        self._scopes: dict[str, dict[str, Variable]] = {}
        sessions.on_close(self._drop_session)

    async def create(
        self,
        session_id: str,
        name: str,
        type: str,  # noqa: A002 - the word users know it by
        value: Any,
        *,
        constraints: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> Variable:
        """Declare a variable and return it.

        Raises:
            VariableExists: the session has one of that name, and ``overwrite`` is False.
            UnsupportedType: there is no such type.
            ValidationFailed: the name, the value or a constraint is wrong.

        Example::

            await variables.create(
                session.id, "temperature", "float", 0.2, constraints={"min": 0.0, "max": 2.0}
            )
        """
        scope = self._scope(session_id)
        check_variable_name(name)
        if name in scope and not overwrite:
            raise VariableExists(
                f"session {session_id!r} has a variable {name!r} already; change it with set or "
                "put, or replace it with create(..., overwrite=True)",
                details={"session_id": session_id, "name": name},
            )
        return self._store(
            _new(session_id, name, type, value, constraints or {}, metadata or {}, inferred=False)
        )

    async def get(self, session_id: str, name: str, default: Any = _MISSING) -> Any:
        """Return a variable's value; if there is none, the default when one is given.

        Raises:
            VariableNotFound: there is none, and no default; names similar ones.
        """
        found = self._find(session_id, name)
        if found is not None:
            return copy_value(found.value)
        if default is not _MISSING:
            return default
        raise self._missing(session_id, name)

    async def get_variable(self, session_id: str, name: str) -> Variable:
        """Return the whole record of a variable.

        Raises:
            VariableNotFound: there is none.
        """
        found = self._find(session_id, name)
        if found is None:
            raise self._missing(session_id, name)
        return _snapshot(found)

    async def set(self, session_id: str, name: str, value: Any) -> Variable:
        """Write a variable that the session has itself, and return it.

        Raises:
            VariableNotFound: it has none of that name (a global one does not count).
            ValidationFailed: the value does not fit the variable's type or constraints.
        """
        existing = self._scope(session_id).get(name)
        if existing is None:
            raise self._missing(session_id, name)
        return self._store(_written(existing, value))

    async def put(self, session_id: str, name: str, value: Any) -> Variable:
        """Write a variable, creating it with the type of the value if the session has none.

        Raises:
            ValidationFailed: the value does not fit the type or constraints of the existing one.
            UnsupportedType: it is new, and no type fits the value.
        """
        existing = self._scope(session_id).get(name)
        if existing is not None:
            return self._store(_written(existing, value))
        check_variable_name(name)
        return self._store(_new(session_id, name, infer_type(value), value, {}, {}, inferred=True))

    async def delete(self, session_id: str, name: str) -> bool:
        """Delete a variable of the session itself; say whether there was one."""
        return self._scope(session_id).pop(name, None) is not None

    async def exists(self, session_id: str, name: str) -> bool:
        """Say whether reading the variable in the session would find one."""
        return self._find(session_id, name) is not None

    async def list(self, session_id: str, *, include_global: bool = False) -> list[Variable]:
        """Return the session's own variables by name; with ``include_global`` all it can read."""
        visible = dict(self._scope(session_id))
        if include_global:
            visible = self._scope(GLOBAL_SESSION) | visible
        return [_snapshot(visible[name]) for name in sorted(visible)]

    # --- the store ---------------------------------------------------------------------------

    def _scope(self, session_id: str) -> dict[str, Variable]:
        self._sessions.require(session_id)
        return self._scopes.setdefault(session_id, {})

    def _find(self, session_id: str, name: str) -> Variable | None:
        found = self._scope(session_id).get(name)
        return self._scope(GLOBAL_SESSION).get(name) if found is None else found

    def _missing(self, session_id: str, name: str) -> VariableNotFound:
        known = {*self._scope(session_id), *self._scope(GLOBAL_SESSION)}
        return VariableNotFound.of(name, session_id, sorted(known))

    def _store(self, variable: Variable) -> Variable:
        self._scopes[variable.session_id][variable.name] = variable
        # Values are never logged: they may be private.
        _log.debug(
            "variable %r of session %r written: type %s, version %d",
            variable.name, variable.session_id, variable.type, variable.version,
        )  # fmt: skip
        return _snapshot(variable)

    async def _drop_session(self, session_id: str) -> None:
        self._scopes.pop(session_id, None)


def _new(
    session_id: str,
    name: str,
    type_name: str,
    value: Any,
    constraints: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    inferred: bool,
) -> Variable:
    checked = validate_constraints(type_name, constraints)
    now = datetime.now(UTC)
    return Variable(
        session_id=session_id,
        name=name,
        type=type_name,
        value=validate_value(value, type_name, checked),
        version=0,
        created_at=now,
        updated_at=now,
        constraints=checked,
        metadata=validate_value(metadata, "map", {}),
        inferred=inferred,
    )


def _written(variable: Variable, value: Any) -> Variable:
    type_name = variable.type
    if variable.inferred and type_name == "integer" and isinstance(value, float):
        type_name = "float"  # temperature = 1 was no promise of whole numbers
    return dataclasses.replace(
        variable,
        type=type_name,
        value=validate_value(value, type_name, variable.constraints),
        version=variable.version + 1,
        updated_at=datetime.now(UTC),
    )


def _snapshot(variable: Variable) -> Variable:
    return dataclasses.replace(
        variable,
        value=copy_value(variable.value),
        constraints=copy_value(variable.constraints),
        metadata=copy_value(variable.metadata),
    )
