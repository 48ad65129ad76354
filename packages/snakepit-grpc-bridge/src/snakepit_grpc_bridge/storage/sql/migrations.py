"""The tables of a database: made, brought up to date, or refused. Runs in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable, DropTable

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.storage.columns import Kind
from snakepit_grpc_bridge.storage.interface import FaultPoint
from snakepit_grpc_bridge.storage.schema import Schema
from snakepit_grpc_bridge.storage.sql.dialects import Dialect
from snakepit_grpc_bridge.storage.sql.statements import TableStatements
from snakepit_grpc_bridge.storage.sql.transaction import Execute, SqlTransaction
from snakepit_grpc_bridge.storage.tables import Table

__all__ = ["COMMITS", "VERSIONS", "prepare"]

#: The format of what the storage itself keeps, and of rows in columns.
_FORMAT = 1

_internal = sa.MetaData()
VERSIONS = sa.Table(
    "schema_version",
    _internal,
    sa.Column("component", sa.Text(), primary_key=True),
    sa.Column("version", sa.BigInteger(), nullable=False),
    sa.Column("fingerprint", sa.Text(), nullable=False),
)
#: On PostgreSQL: the number of the last transaction that each connection has committed.
COMMITS = sa.Table(
    "commits",
    _internal,
    sa.Column("connection", sa.Text(), primary_key=True),
    sa.Column("storage", sa.Text(), nullable=False),
    sa.Column("number", sa.BigInteger(), nullable=False),
    sa.Column("since", sa.Double(), nullable=False),
)


class _Database:
    """What is said to a database beside rows."""

    def __init__(self, execute: Execute, dialect: Dialect) -> None:
        self.execute = execute
        self.dialect = dialect

    def run(self, statement: Any, **values: Any) -> Any:
        compiled = statement.compile(dialect=self.dialect.compiler)
        names = getattr(compiled, "positiontup", None) or ()
        known = {**compiled.params, **values} if names else {}
        return self.execute(str(compiled), [known[name] for name in names])

    def has(self, table: sa.Table) -> bool:
        return self.execute(self.dialect.tables, (table.name,)).fetchone() is not None

    def create(self, table: sa.Table) -> None:
        self.run(CreateTable(table, if_not_exists=True))
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            self.run(CreateIndex(index, if_not_exists=True))

    def version_of(self, component: str) -> tuple[int, str] | None:
        select = sa.select(VERSIONS.c.version, VERSIONS.c.fingerprint)
        found = self.run(select.where(VERSIONS.c.component == component)).fetchone()
        return None if found is None else (int(found[0]), str(found[1]))

    def set_version(self, component: str, version: int, fingerprint: str) -> None:
        insert = self.dialect.insert(VERSIONS).values(
            component=component, version=version, fingerprint=fingerprint
        )
        new = {"version": insert.excluded.version, "fingerprint": insert.excluded.fingerprint}
        self.run(insert.on_conflict_do_update(index_elements=["component"], set_=new))


class _AnyTable(dict[Table[Any], TableStatements]):
    """Statements of whatever table is asked for: a migration knows the tables of earlier times."""

    def __init__(self, dialect: Dialect) -> None:
        super().__init__()
        self._dialect = dialect

    def __missing__(self, table: Table[Any]) -> TableStatements:
        made = self[table] = TableStatements(table, self._dialect)
        return made


class _Migration(SqlTransaction):
    """The :class:`~snakepit_grpc_bridge.storage.schema.Migration` of a database."""

    def __init__(self, database: _Database, fault_point: Callable[[FaultPoint], None]) -> None:
        super().__init__(database.execute, _AnyTable(database.dialect), fault_point)
        self._database = database

    def create(self, table: Table[Any]) -> None:
        self._database.create(_declared(table, self._database.dialect))

    def add_column(self, table: Table[Any], column: str, value: Any) -> None:
        dialect = self._database.dialect
        made, new = _declared(table, dialect), table.column(column)
        new.check(value)
        # The rows there are have no value yet, and SQLite can't add the condition afterwards.
        made.c[column].nullable = True
        added = CreateColumn(made.c[column]).compile(dialect=dialect.compiler)
        name = dialect.compiler.identifier_preparer.format_table(made)
        self._execute(f"ALTER TABLE {name} ADD COLUMN {added}", ())
        encode = dialect.encoder(new)
        given = value if encode is None else encode(value)
        self._database.run(sa.update(made).values({column: given}))

    def drop(self, table: str) -> None:
        self._database.run(DropTable(sa.Table(table, sa.MetaData()), if_exists=True))


def prepare(
    execute: Execute,
    dialect: Dialect,
    schema: Schema,
    fault_point: Callable[[FaultPoint], None],
) -> None:
    """Make a database have today's tables. The transaction must exclude all others that do so.

    Raises:
        ConfigurationError: it is of a newer version, or the tables were changed without a
            migration.
    """
    database = _Database(execute, dialect)
    # Asked first: IF NOT EXISTS takes the right to make tables also where there are some.
    if not database.has(VERSIONS):
        for table in (VERSIONS, COMMITS):
            database.create(table)
    found = database.version_of("storage")
    _refuse_newer("format", found, _FORMAT)
    if found is None:
        database.set_version("storage", _FORMAT, "")
    found = database.version_of("tables")
    _refuse_newer("version", found, schema.version)
    migration = _Migration(database, fault_point)
    fingerprint = schema.fingerprint()
    if found == (schema.version, fingerprint):
        return
    if found is None:
        for declared in schema.tables:
            migration.create(declared)
    elif found[0] < schema.version:
        for step in schema.migrations[found[0] - 1 :]:
            step(migration)
            if migration.failure is not None:
                raise migration.failure
    else:
        raise ConfigurationError(
            f"the tables of the database are of version {schema.version} and not as this program "
            "declares them; undo the change of the declarations, or add a migration for it"
        )
    database.set_version("tables", schema.version, fingerprint)


def _refuse_newer(what: str, found: tuple[int, str] | None, known: int) -> None:
    if found is not None and found[0] > known:
        raise ConfigurationError(
            f"the database has {what} {found[0]}, this program knows {known} and earlier ones: a "
            "newer release has used it; install that release or a later one, or use another "
            "database"
        )


def _declared(table: Table[Any], dialect: Dialect) -> sa.Table:
    """Return a declared table as the database is to have it."""
    # Values stand last: what follows a long one in a row of SQLite has to be searched for.
    by_place = sorted(table.columns, key=lambda column: column.kind is Kind.VALUE)
    # Rows without long values are kept in the tree of the key itself, which saves one.
    with_rowid = any(column.kind is Kind.VALUE for column in table.columns)
    made = sa.Table(
        table.name,
        sa.MetaData(),
        *(
            sa.Column(column.name, dialect.types[column.kind], nullable=column.nullable)
            for column in by_place
        ),
        sa.PrimaryKeyConstraint(*table.key),
        sqlite_with_rowid=with_rowid,
    )
    for order in table.orders.values():
        if order.name is not None:
            there = sa.and_(sa.true(), *(made.c[name].is_not(None) for name in order.optional))
            partial = there if order.optional else None
            sa.Index(
                f"{table.name}_by_{order.name}",
                *(made.c[name] for name in order.columns),
                sqlite_where=partial,
                postgresql_where=partial,
            )
    return made
