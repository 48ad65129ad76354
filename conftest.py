"""Rules for every test: how async ones run, and what none may leave behind."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import wraps
from typing import Any

import pytest
from after_check import assert_accounted
from hypothesis import HealthCheck, settings
from leak_check import WAIT, Snapshot, kill_new_processes, leaks_since

from snakepit import Pool, PoolStats

pytest_plugins = ["storage_fixtures"]

# How long an example takes tells of the machine, and of nothing that these tests are about.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")


def pytest_configure() -> None:
    """Let Ctrl-C interrupt here and in what tests start; a job in the background inherits that it
    does not.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the hour-long tests out, unless the command line names their marker."""
    if "soak" in config.option.markexpr:
        return
    long = [item for item in items if item.get_closest_marker("soak") is not None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@pytest.fixture(autouse=True, scope="module")
def _collections_pass_over_what_stays() -> None:
    """Keep the collection after each async test short: modules, caches and reports only grow."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def test_...` in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(_run(pyfuncitem.obj, arguments))
    gc.collect()  # exceptions nobody retrieved are reported when their task is collected
    return True


async def _run(test: Callable[..., Awaitable[None]], arguments: dict[str, Any]) -> None:
    await test(**arguments)
    # asyncio.run would cancel these silently.
    pending = asyncio.all_tasks() - {asyncio.current_task()}
    if pending:
        _, pending = await asyncio.wait(pending, timeout=WAIT)
    if pending:
        pytest.fail("tasks are still running:\n" + "\n".join(f"  {task!r}" for task in pending))


class _Problems(logging.Handler):
    """Collects what asyncio can only log: lost exceptions, destroyed tasks, failing callbacks."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))


@pytest.fixture(autouse=True, scope="session")
def _nothing_left_by_the_run() -> Iterator[None]:
    before = Snapshot.take()
    yield
    _fail_on_leaks(before)


@pytest.fixture(autouse=True)
def _nothing_left_by_the_test() -> Iterator[None]:
    problems = _Problems()
    logger = logging.getLogger("asyncio")
    logger.addHandler(problems)
    before = Snapshot.take()
    yield
    logger.removeHandler(problems)
    _fail_on_leaks(before)
    if problems.texts:
        pytest.fail("asyncio reported:\n" + "\n".join(problems.texts), pytrace=False)


@pytest.fixture(autouse=True, scope="session")
def _closed_pools() -> Iterator[list[PoolStats]]:
    """What the pools had counted that were closed since the test began."""
    closed: list[PoolStats] = []
    original = Pool.aclose

    @wraps(original)
    async def aclose(pool: Pool, **options: Any) -> None:
        await original(pool, **options)
        closed.append(pool.stats())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pool, "aclose", aclose)
        yield closed


@pytest.fixture(autouse=True)
def _every_call_has_one_end(_closed_pools: list[PoolStats]) -> Iterator[None]:
    _closed_pools.clear()
    yield
    for stats in _closed_pools:
        assert_accounted(stats)


@pytest.fixture
def silent_on_stderr(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What goes wrong is told by errors and logs; on stderr it is noise nobody asked for."""
    yield
    gc.collect()  # what was never awaited or retrieved is reported when it is collected
    printed = capfd.readouterr().err
    assert printed == "", f"on stderr:\n{printed}"


def _fail_on_leaks(before: Snapshot) -> None:
    leaks = leaks_since(before)
    if leaks:
        kill_new_processes(before)
        pytest.fail("left behind:\n" + "\n".join(f"  {leak}" for leak in leaks), pytrace=False)
