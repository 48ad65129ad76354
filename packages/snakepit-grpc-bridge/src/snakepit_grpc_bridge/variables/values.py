"""Between the values that users give and get, and what is stored of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from snakepit.errors import ConfigurationError
from snakepit.wire.codec import encode
from snakepit_grpc_bridge.variables.rows import (
    HistoryRow,
    Variable,
    VariableRow,
    VariableVersion,
    source_of,
)
from snakepit_grpc_bridge.variables.types import Declaration, Secret, TypeRegistry, seal, unseal
from snakepit_grpc_bridge.variables.types.plain import copy_plain

__all__ = ["Values", "moment"]

_MOST_DECLARATIONS: Final = 10_000


class Values:
    """Reads and shows the values of variables.

    Args:
        types: the types there are.
        secret_keys: under which secrets are sealed; none if they stay in this process.
        durable: whether what is stored leaves the process.

    Raises:
        ConfigurationError: a key is none.
    """

    def __init__(
        self, types: TypeRegistry, *, secret_keys: Sequence[Secret] = (), durable: bool = False
    ) -> None:
        self.types = types
        self._keys = tuple(secret_keys)
        self._durable = durable
        if self._keys:
            seal(Secret(""), self._keys, context="")  # now, and not with the first secret
        # Variables with the same limits share a declaration, which takes a while to make.
        self._declarations: dict[tuple[str, bytes], Declaration[Any]] = {}

    def declaration(self, type_name: str, constraints: Mapping[str, Any]) -> Declaration[Any]:
        """A type with constraints that were declared before."""
        if not constraints:
            return self.types.declare(type_name)
        key = type_name, encode(dict(constraints))
        found = self._declarations.get(key)
        if found is None:
            if len(self._declarations) >= _MOST_DECLARATIONS:
                self._declarations.clear()
            found = self._declarations[key] = self.types.declare(type_name, constraints)
        return found

    # --- stored ----------------------------------------------------------------------------------

    def to_store(self, declaration: Declaration[Any], value: Any, place: str) -> Any:
        """Return what is stored of a value that a declaration has read.

        Raises:
            ConfigurationError: it is a secret, there is no key to seal it, and it would be written
                down; or its private type does not make a Secret of it.
        """
        if not declaration.type.private or value is None:
            return declaration.to_plain(value)
        if type(value) is not Secret:
            raise ConfigurationError(
                f"the type {declaration.type.name!r} is private, so its `read` has to return a "
                f"Secret, not a {type(value).__name__}"
            )
        if self._keys:
            return seal(value, self._keys, context=place)
        if self._durable:
            raise ConfigurationError(
                "secrets are stored encrypted only, and there is no key: set secret_keys, or keep "
                "the state in memory"
            )
        return value

    def from_store(self, type_name: str, plain: Any, place: str) -> Any:
        """Return a value as its readers get it.

        Raises:
            DecodeError: it is none of its type.
        """
        declaration = self.types.stored(type_name)
        if declaration.type.private:
            if isinstance(plain, bytes):
                return unseal(plain, self._keys, context=place)
            if plain is not None and type(plain) is not Secret:
                raise declaration.undecodable(" but not sealed")
            return plain
        # What lies in this process was checked when it was written.
        if self._durable or declaration.type.from_plain is not None:
            plain = declaration.from_plain(plain)
        return declaration.copy(plain)

    def check_stored(self, row: VariableRow) -> None:
        """Refuse what others have written into a database and is no value of its type.

        Raises:
            DecodeError: it is none.
        """
        if self._durable:
            self.types.stored(row.type).from_plain(row.value)

    # --- shown -----------------------------------------------------------------------------------

    def value_of(self, row: VariableRow) -> Any:
        """The value of a variable."""
        return self.from_store(row.type, row.value, place_of(row))

    def variable(self, row: VariableRow) -> Variable:
        """A variable as users see it."""
        return Variable(
            id=row.id,
            session_id=row.session_id,
            name=row.name,
            type=row.type,
            value=self.value_of(row),
            version=row.version,
            created_at=moment(row.created_at),
            updated_at=moment(row.updated_at),
            updated_by=row.updated_by,
            source=source_of(row),
            constraints=copy_plain(row.constraints),
            metadata=copy_plain(row.metadata),
            inferred=row.inferred,
            read_only=row.read_only,
            ttl=row.ttl,
            expires=None if row.expires is None else moment(row.expires),
        )

    def version(self, row: HistoryRow) -> VariableVersion:
        """An earlier state as users see it."""
        kept = row.kept and not row.deleted
        value = self.from_store(row.type, row.value, place_of(row)) if kept else None
        return VariableVersion(
            version=row.version,
            type=row.type,
            value=value,
            updated_at=moment(row.updated_at),
            updated_by=row.updated_by,
            source=source_of(row),
            deleted=row.deleted,
            kept=row.kept,
        )


def place_of(row: VariableRow | HistoryRow) -> str:
    """Where a secret is sealed for: it can't be read elsewhere."""
    return f"{row.session_id}/{row.name}"


def moment(seconds: float) -> datetime:
    """A point in time as users see it."""
    return datetime.fromtimestamp(seconds, UTC)
