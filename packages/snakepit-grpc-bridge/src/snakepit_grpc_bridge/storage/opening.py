"""From a URL to a storage."""

from __future__ import annotations

from collections.abc import Callable

from snakepit.errors import ConfigurationError
from snakepit.options import seconds
from snakepit_grpc_bridge.storage.interface import FaultPoint, Storage
from snakepit_grpc_bridge.storage.memory import MemoryStorage
from snakepit_grpc_bridge.storage.schema import Schema
from snakepit_grpc_bridge.storage.urls import MemoryUrl, SqliteUrl, parse_url

__all__ = ["open_storage"]


def open_storage(
    url: str,
    schema: Schema,
    *,
    timeout: float = 5.0,
    fault_point: Callable[[FaultPoint], None] | None = None,
) -> Storage:
    """Return the storage that a URL means. Enter it (``async with``) to open it.

    Args:
        url: ``memory``; ``sqlite:///PATH``; or ``postgresql://USER:PASSWORD@HOST/DATABASE``, with
            any parameters that libpq takes.
        schema: the tables.
        timeout: seconds that a transaction waits for others, and for a server that is lost.
        fault_point: for tests of what happens when a process dies: called with the name of each
            place that a transaction of a database passes, in the thread that runs it.

    Raises:
        ConfigurationError: the URL can't be read, or a package that it needs is not installed.

    Example::

        schema = Schema(tables=(NOTES,))
        async with open_storage("sqlite:///state.db", schema) as storage:
            await storage.transact(lambda tx: tx.put(NOTES, Note("ada", 1, "hello", None)))
    """
    place = parse_url(url)
    wait = seconds("timeout", timeout)
    if isinstance(place, MemoryUrl):
        return MemoryStorage(schema)
    try:
        # Not at the top: the host loads no database unless it is told to use one.
        if isinstance(place, SqliteUrl):
            from snakepit_grpc_bridge.storage.sql.sqlite import sqlite_storage

            return sqlite_storage(place, schema, wait, fault_point or _pass)
        from snakepit_grpc_bridge.storage.sql.postgres import postgresql_storage

        return postgresql_storage(place, schema, wait, fault_point or _pass)
    except ImportError as error:
        missing = error.name or "psycopg[binary]"  # which has no name for a libpq that is missing
        if missing.startswith("snakepit"):
            raise
        extra = "storage" if isinstance(place, SqliteUrl) else "postgres"
        raise ConfigurationError(
            f"this storage needs the package {missing}, which is not installed: "
            f"pip install 'snakepit-grpc-bridge[{extra}]'"
        ) from error


def _pass(point: FaultPoint) -> None:
    pass
