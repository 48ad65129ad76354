"""Which tables a storage has, and how those of an earlier version become today's. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.storage.interface import Transaction
from snakepit_grpc_bridge.storage.tables import Table

__all__ = ["Migration", "MigrationStep", "Schema"]


class Migration(Transaction, Protocol):
    """What a migration can do: change tables, and the rows in them, in one transaction.

    A migration has to go on meaning the same when the declarations change later: give it copies of
    them as they were in its version.
    """

    def create(self, table: Table[Any]) -> None:
        """Create a table, and those of its indexes that are missing."""
        ...

    def add_column(self, table: Table[Any], column: str, value: Any) -> None:
        """Add a column of ``table`` to the database, with ``value`` in all rows there are."""
        ...

    def drop(self, table: str) -> None:
        """Drop the table of that name with all its rows."""
        ...


MigrationStep = Callable[[Migration], None]


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a storage, as they are now, and the steps that lead there.

    Attributes:
        tables: the tables.
        migrations: what to do with a database of version 1, 2, ..., in order. A new database gets
            today's tables at once. Never change a step that has been released; add another one.

    Raises:
        ConfigurationError: two tables have one name.

    Example::

        def add_titles(migration: Migration) -> None:
            migration.add_column(NOTES_2, "title", "")

        schema = Schema(tables=(NOTES,), migrations=(add_titles,))
    """

    tables: tuple[Table[Any], ...]
    migrations: tuple[MigrationStep, ...] = ()

    def __post_init__(self) -> None:
        names = [table.name for table in self.tables]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"several tables have the name {', '.join(twice)}; rename one")

    @property
    def version(self) -> int:
        """The version of the database that these tables are: 1 without migrations."""
        return 1 + len(self.migrations)

    def fingerprint(self) -> str:
        """Return a text by which databases notice a change that has no migration."""
        described = "\n".join(sorted(table.described() for table in self.tables))
        return hashlib.sha256(described.encode()).hexdigest()
