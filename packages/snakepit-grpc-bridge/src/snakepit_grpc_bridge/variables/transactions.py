"""Several reads and writes that take effect together, or not at all."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import VariableNotFound
from snakepit_grpc_bridge.variables.names import is_id, name_of

if TYPE_CHECKING:
    from snakepit_grpc_bridge.variables.rows import Variable
    from snakepit_grpc_bridge.variables.service import VariableService

__all__ = ["VariableTransaction"]

_MISSING: Final[Any] = object()
_DELETED: Final[Any] = object()


class VariableTransaction:
    """Reads and writes variables of one session; made by ``variables.transaction``.

    Nothing is locked meanwhile. What was written takes effect when the ``async with`` block ends,
    if nobody else has written any of the variables that it read or wrote since it first looked at
    them; otherwise VariableConflict is raised and nothing is written. A block that raises writes
    nothing.

    Example::

        async with platform.variables.transaction(session.id) as tx:
            rest = await tx.get("budget") - 3
            tx.set("budget", rest)
            tx.set("spent", await tx.get("spent", 0) + 3)
    """

    def __init__(self, service: VariableService, session_id: str) -> None:
        self._service = service
        self._session_id = session_id
        # By name: what was read, and what is to be written, to whom the caller called it.
        self._read: dict[str, Variable | None] = {}
        self._written: dict[str, tuple[str, Any]] = {}
        self._ended = False

    async def get(self, name: str, default: Any = _MISSING) -> Any:
        """The session's own variable, as this transaction has read or written it.

        Raises:
            VariableNotFound: there is none, and no default.
        """
        self._require_open()
        _, written = self._written.get(name_of(name), (name, _MISSING))
        if written is _MISSING or is_id(name):
            found = await self._look_at(name_of(name))
            if found is None or name not in (found.name, found.id):
                written = _DELETED
            elif written is _MISSING:
                written = found.value
        if written is not _DELETED:
            return written
        if default is not _MISSING:
            return default
        raise await self._missing(name)

    def set(self, name: str, value: Any) -> None:
        """Write a variable when the block ends; one that is new gets the type of its value."""
        self._require_open()
        self._written[name_of(name)] = name, value

    def delete(self, name: str) -> None:
        """Delete a variable when the block ends."""
        self.set(name, _DELETED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if error is None and (self._written or self._read):
            await self._commit()

    async def _commit(self) -> None:
        versions = {
            name: None if found is None else found.version for name, found in self._read.items()
        }
        writes = self._written.values()
        written = {name: value for name, value in writes if value is not _DELETED}
        deleted = [name for name, value in writes if value is _DELETED]
        await self._service.commit(self._session_id, versions, written, deleted)

    async def _missing(self, name: str) -> VariableNotFound:
        if not is_id(name):
            return VariableNotFound.of(name, self._session_id, [])
        successor = await self._look_at(name_of(name))
        taken = None if successor is None else successor.id
        return VariableNotFound.of_id(name, self._session_id, taken)

    async def _look_at(self, name: str) -> Variable | None:
        if name not in self._read:
            self._read[name] = await self._service.own(self._session_id, name)
        return self._read[name]

    def _require_open(self) -> None:
        if self._ended:
            raise ConfigurationError("this transaction has ended; begin another one")
