"""Where the platform's state is kept: tables of records in memory, SQLite or PostgreSQL.

Importing it loads no database; :func:`open_storage` does, if the URL asks for one.
"""

from __future__ import annotations

from snakepit_grpc_bridge.storage.interface import (
    Change,
    FaultPoint,
    ReadTransaction,
    Storage,
    Transaction,
)
from snakepit_grpc_bridge.storage.opening import open_storage
from snakepit_grpc_bridge.storage.schema import Migration, Schema
from snakepit_grpc_bridge.storage.tables import Span, Table

__all__ = [
    "Change",
    "FaultPoint",
    "Migration",
    "ReadTransaction",
    "Schema",
    "Span",
    "Storage",
    "Table",
    "Transaction",
    "open_storage",
]
