"""Which storage a URL means. Pure; no error and no text for people shows a password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from snakepit.errors import ConfigurationError

__all__ = ["MemoryUrl", "PostgresqlUrl", "SqliteUrl", "StorageUrl", "parse_url"]

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
# Hosts, or addresses of version 6 in brackets, each with its port if need be.
_PLACES = re.compile(r"((\[[^\]]*\]|[^:,\[\]]*)(:\d*)?)(,(\[[^\]]*\]|[^:,\[\]]*)(:\d*)?)*")
_FORMS = "'memory', 'sqlite:///PATH' or 'postgresql://USER@HOST/DATABASE'"


@dataclass(frozen=True, slots=True)
class MemoryUrl:
    """``memory``."""


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """``sqlite:///PATH``; an absolute path makes four slashes."""

    path: Path


@dataclass(frozen=True, slots=True)
class PostgresqlUrl:
    """``postgresql://...``, as libpq has it.

    Attributes:
        conninfo: the URL. It may hold a password.
        label: the URL without its password and parameters, for people.
    """

    conninfo: str
    label: str

    def __repr__(self) -> str:
        return f"PostgresqlUrl({self.label})"


StorageUrl = MemoryUrl | SqliteUrl | PostgresqlUrl


def parse_url(url: str) -> StorageUrl:
    """Return what a URL means.

    Raises:
        ConfigurationError: it is of no known form; the message does not repeat it.

    Example:
        >>> parse_url("postgresql://ada:secret@db.example/lab")
        PostgresqlUrl(postgresql://ada@db.example/lab)
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"storage has to be text, {_FORMS}, not {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if url == "memory":
        return MemoryUrl()
    if separator and scheme == "sqlite":
        return _sqlite(url)
    if separator and scheme in ("postgresql", "postgres"):
        return _postgresql(url)
    raise ConfigurationError(f"the storage's URL begins like none that is known; use {_FORMS}")


def _sqlite(url: str) -> SqliteUrl:
    path = url.removeprefix("sqlite:///")
    if path == url or not path or "?" in path or "\0" in path:
        raise ConfigurationError(
            "a SQLite storage is sqlite:///PATH, without options: sqlite:///state.db in the "
            "working directory, or sqlite:////var/lib/app/state.db"
        )
    return SqliteUrl(Path(path).absolute())


def _postgresql(url: str) -> PostgresqlUrl:
    # libpq's errors repeat what it can't parse; parts of a password must not get that far.
    try:
        parts = urlsplit(url)
    except ValueError:
        raise _unreadable() from None
    account, at, place = parts.netloc.rpartition("@")
    stray = parts.fragment or "@" in account or url.count("@") > len(at)
    if stray or _BAD_PERCENT.search(url) or not _PLACES.fullmatch(place):
        raise _unreadable()
    user = account.partition(":")[0] + at
    return PostgresqlUrl(url, f"postgresql://{user}{place}{parts.path}")


def _unreadable() -> ConfigurationError:
    return ConfigurationError(
        "the PostgreSQL URL can't be read; write it as postgresql://USER:PASSWORD@HOST:PORT/"
        "DATABASE, with @ : / ? # and % of the password as %40 %3A %2F %3F %23 and %25"
    )
