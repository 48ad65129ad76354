"""The files of a SQLite database, and whether they are still those that were opened."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from snakepit_grpc_bridge.errors import BridgeError, StorageFull, StorageUnavailable
from snakepit_grpc_bridge.storage.sql.identity import Identity, identity_reader

__all__ = ["Place"]


class Place:
    """Where a database is. The threads of a storage share it; the one that writes comes first.

    What is written to a deleted file is lost without any error, so each transaction looks whether
    the files are in their place.

    Attributes:
        path: the file's path, symbolic links resolved: SQLite puts its log beside the real file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._file = os.fsencode(self.path)
        self._log = self._file + b"-wal"
        self._identity = identity_reader()
        self._file_identity: Identity | None = None
        self._log_identity: Identity | None = None

    def claim(self) -> None:
        """Create the file when it is opened for the first time; see that it is the same later on.

        Raises:
            StorageUnavailable: it can't be created, or is another one now.
            StorageFull: there is no room to create it.
        """
        if self._file_identity is not None:
            self.check()
            return
        try:
            _create(self.path)
        except FileExistsError:
            pass
        except OSError as error:
            raise _not_created(self.path, error) from error
        self._file_identity = self._identity(self._file)

    def check(self) -> None:
        """See that the file is in its place.

        Raises:
            StorageUnavailable: it is not.
        """
        if self._identity(self._file) != self._file_identity:
            raise self._moved(self._file)

    def check_with_log(self) -> None:
        """As :meth:`check`, also for the log that holds the latest commits.

        The thread that writes calls it inside a transaction, when there is a log.
        """
        self.check()
        identity = self._identity(self._log)
        if self._log_identity is None:
            self._log_identity = identity
        if identity is None or identity != self._log_identity:
            raise self._moved(self._log)

    def forget_log(self) -> None:
        """Forget the log: it may be made anew when no connection was open."""
        self._log_identity = None

    def _moved(self, file: bytes) -> StorageUnavailable:
        path = os.fsdecode(file)
        return StorageUnavailable(
            f"{path} was deleted or replaced while the database was open; nothing is written any "
            "more: put it back, or close the storage and open it anew",
            retryable=False,
            details={"file": path},
        )


def _create(path: Path) -> None:
    """Create an empty file that only its owner can read, durably."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system can do that
            os.fsync(folder)
    finally:
        os.close(folder)


def _not_created(path: Path, error: OSError) -> BridgeError:
    problem = f"the database {path} can't be created: {error.strerror}"
    details = {"file": str(path)}
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull(f"{problem}; free some and try again", details=details)
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        advice = "let this process have more open files, or have fewer of them open"
        return StorageUnavailable(f"{problem}; {advice}", details=details)
    return StorageUnavailable(
        f"{problem}; make its folder, and make that writable for this user",
        retryable=False,
        details=details,
    )
