"""What the errors of PostgreSQL mean to a transaction. Pure."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from snakepit.errors import SnakepitError
from snakepit_grpc_bridge.errors import (
    StorageBusy,
    StorageCorrupt,
    StorageFull,
    StorageUnavailable,
    ValidationFailed,
)
from snakepit_grpc_bridge.storage.sql.engine import Again

__all__ = ["lost", "translated"]

#: Serialization failure, deadlock, a lock that was not to be had.
_IN_THE_WAY: Final = {"40001", "40P01", "55P03"}
_DISK_FULL: Final = "53100"
_TOO_LARGE: Final = {"54000", "54023"}
#: Read-only (a standby), shutting down, crashed, starting, idle for too long in a transaction.
_AWAY: Final = {"25006", "57P01", "57P02", "57P03", "57P05", "25P03"}
#: Connection exceptions, and resources such as connections that have run out.
_AWAY_CLASSES: Final = ("08", "53")
# No code comes with the refusal of a connection. In another language than English these are
# attempted until the time is over, like those of a server that is not there.
_REFUSED: Final = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry"
    r"|permission denied|is not permitted to log in"
)


def translated(error: psycopg.Error, label: str) -> Exception:
    """Return the error for one of the driver; an :class:`Again` where another attempt may help."""
    state = error.sqlstate
    details = {"storage": label, "code": state}
    if state is None:
        return _without_code(error, label)
    if state in _IN_THE_WAY:
        return Again(
            StorageBusy(
                f"other transactions on {label} were in the way for too long; try again",
                details=details,
            ),
            soon=True,
        )
    if state == _DISK_FULL:
        return StorageFull(
            f"{label} has no room left; nothing was written: free some and try again",
            details=details,
        )
    if state in _AWAY or state.startswith(_AWAY_CLASSES):
        return Again(lost(label))
    if state in _TOO_LARGE:
        return ValidationFailed("a row is larger than PostgreSQL takes; divide it")
    if state.startswith("XX"):
        return StorageCorrupt(
            f"{label} reports damaged data; see the cause and the server's log", details=details
        )
    return StorageUnavailable(
        f"{label} refused a statement ({state}); nothing was written: see the cause",
        retryable=False,
        details=details,
    )


def _without_code(error: psycopg.Error, label: str) -> Exception:
    if isinstance(error, psycopg.OperationalError) and _REFUSED.search(str(error)):
        return StorageUnavailable(
            f"{label} refuses the connection: check user, password, database and the server's "
            "pg_hba.conf; the cause says which",
            retryable=False,
            details={"storage": label},
        )
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Again(lost(label))
    return StorageUnavailable(
        f"the driver of {label} refused a statement; nothing was written: see the cause",
        retryable=False,
        details={"storage": label},
    )


def lost(label: str) -> SnakepitError:
    """Return the error for a server that can't be reached."""
    return StorageUnavailable(
        f"{label} can't be reached; nothing was written: start the server, or try again later",
        details={"storage": label},
    )
