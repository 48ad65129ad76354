"""Which storage a URL means, and that no password shows."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from storage_tables import SCHEMA

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.errors import StorageUnavailable
from snakepit_grpc_bridge.storage import open_storage
from snakepit_grpc_bridge.storage.urls import MemoryUrl, PostgresqlUrl, SqliteUrl, parse_url

SECRET = "hunter2"


def test_urls_that_can_be_read() -> None:
    assert parse_url("memory") == MemoryUrl()
    assert parse_url("sqlite:////var/lib/a b#1.db") == SqliteUrl(Path("/var/lib/a b#1.db"))
    assert parse_url("sqlite:///state.db") == SqliteUrl(Path.cwd() / "state.db")
    url = f"postgresql://ada:{SECRET}@db-1.example:5433,db-2.example/lab?sslmode=require"
    parsed = parse_url(url)
    assert isinstance(parsed, PostgresqlUrl)
    assert parsed.conninfo == url
    assert parsed.label == "postgresql://ada@db-1.example:5433,db-2.example/lab"
    assert SECRET not in repr(parsed)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite",
        "memory://",
        "sqlite://",
        "sqlite:///",
        "sqlite://state.db",
        "sqlite:///state.db?mode=ro",
        "mysql://localhost/x",
        "/var/lib/state.db",
        None,
        Path("state.db"),
    ],
)
def test_urls_that_mean_nothing_are_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///PATH"):
        open_storage(url, SCHEMA)


@pytest.mark.parametrize(
    "password",
    [
        f"a@{SECRET}",
        f"a/{SECRET}",
        f"{SECRET}/b@c",
        f"a?{SECRET}",
        f"a#{SECRET}",
        f"a%{SECRET}",
        f"%00{SECRET}",
        f"[{SECRET}",
        f"{SECRET}%zz",
    ],
)
def test_a_password_that_was_not_encoded_does_not_show(password: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        open_storage(f"postgresql://ada:{password}@localhost/lab", SCHEMA)
    assert SECRET not in shown(raised.value)


@pytest.mark.parametrize("rest", ["localhost:54x/lab", "localhost/lab?nonsense=1", "localhost/?x"])
async def test_a_password_beside_another_mistake_does_not_show(rest: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        async with open_storage(f"postgresql://ada:{SECRET}@{rest}", SCHEMA, timeout=0.1):
            pass
    assert SECRET not in shown(raised.value)


async def test_a_password_does_not_show_when_nobody_answers() -> None:
    url = f"postgresql://ada:{SECRET}@127.0.0.1:1/lab?password={SECRET}"
    storage = open_storage(url, SCHEMA, timeout=0.1)
    assert repr(storage) == "<Storage postgresql://ada@127.0.0.1:1/lab>"
    with pytest.raises(StorageUnavailable) as raised:
        await storage.start()
    assert raised.value.retryable
    assert raised.value.__cause__ is not None
    assert SECRET not in shown(raised.value) + str(raised.value.details) + repr(storage)


def shown(error: BaseException) -> str:
    """The error and its causes, as a log has them."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "5", True])
def test_a_timeout_that_makes_no_sense_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        open_storage("memory", SCHEMA, timeout=timeout)
