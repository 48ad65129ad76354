"""Fixtures for tests of storages: a URL of each backend, empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_cluster import PostgresCluster, running_cluster, why_unavailable

MEMORY = "memory"
DATABASES = ("sqlite", "postgres")


@pytest.fixture(scope="session")
def server_of_the_run() -> Iterator[PostgresCluster | None]:
    """One server for the whole run, if there can be one.

    Fixtures ask for it by their arguments: it has to be up before a test's own leak check begins.
    """
    if why_unavailable() is not None:
        yield None
        return
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_cluster(server_of_the_run: PostgresCluster | None) -> PostgresCluster:
    """A PostgreSQL server, which many tests use: they may not stop it."""
    if server_of_the_run is None:
        pytest.skip(f"no PostgreSQL: {why_unavailable()}")
    return server_of_the_run


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres_cluster.url(postgres_cluster.emptied_database())


@pytest.fixture
def own_cluster() -> Iterator[PostgresCluster]:
    """A server that the test may stop."""
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(f"no PostgreSQL: {reason}")
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture(params=[MEMORY, *DATABASES])
def storage_url(request: pytest.FixtureRequest, server_of_the_run: PostgresCluster | None) -> str:
    """The URL of an empty storage: the test runs on every backend."""
    return _url(request)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, server_of_the_run: PostgresCluster | None) -> str:
    """The URL of an empty database: the test runs on both that last."""
    return _url(request)


def _url(request: pytest.FixtureRequest) -> str:
    if request.param == MEMORY:
        return MEMORY
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url
