"""Several reads and writes that take effect together, or not at all."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import VariableNotFound

if TYPE_CHECKING:
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
        self._read: dict[str, tuple[Any, int | None]] = {}
        self._written: dict[str, Any] = {}
        self._ended = False

    async def get(self, name: str, default: Any = _MISSING) -> Any:
        """The session's own variable, as this transaction has read or written it.

        Raises:
            VariableNotFound: there is none, and no default.
        """
        self._require_open()
        written = self._written.get(name, _MISSING)
        if written is not _MISSING and written is not _DELETED:
            return written
        value, version = await self._look_at(name)
        if version is not None and written is not _DELETED:
            return value
        if default is not _MISSING:
            return default
        raise VariableNotFound.of(name, self._session_id, [])

    def set(self, name: str, value: Any) -> None:
        """Write a variable when the block ends; one that is new gets the type of its value."""
        self._require_open()
        self._written[name] = value

    def delete(self, name: str) -> None:
        """Delete a variable when the block ends."""
        self._require_open()
        self._written[name] = _DELETED

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
        versions = {name: version for name, (_, version) in self._read.items()}
        written = {name: value for name, value in self._written.items() if value is not _DELETED}
        deleted = [name for name, value in self._written.items() if value is _DELETED]
        await self._service.commit(self._session_id, versions, written, deleted)

    async def _look_at(self, name: str) -> tuple[Any, int | None]:
        if name not in self._read:
            self._read[name] = await self._service.own_value(self._session_id, name)
        return self._read[name]

    def _require_open(self) -> None:
        if self._ended:
            raise ConfigurationError("this transaction has ended; begin another one")
