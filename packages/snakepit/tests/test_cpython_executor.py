"""CPython's own tests of ProcessPoolExecutor, against snakepit's."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PROGRAM: Final = Path(__file__).with_name("cpython_executor_suite.py")
#: Where Debian's package libpython3.11-testsuite has them, for an interpreter without its own.
DEBIAN: Final = Path("/usr/lib/python3.11/test/test_concurrent_futures.py")

#: The classes of the suite, without what their names begin and end with, and those of their tests
#: that do not apply, with the reason: each reads private fields of the standard executor.
LEFT_OUT: Final[dict[str, dict[str, str]]] = {
    "Initializer": {},
    "FailingInitializer": {
        "test_initializer": "waits for _broken; test_executor.py tests such initializers",
    },
    "Wait": {},
    "AsCompleted": {},
    "ProcessPoolShutdown": {
        "test_context_manager_shutdown": "reads _processes",
        "test_del_shutdown": "reads _processes and _executor_manager_thread",
        "test_processes_terminate": "takes the processes from _processes",
        "test_shutdown_no_wait": "reads _processes and _executor_manager_thread",
    },
    "ProcessPoolExecutor": {
        "test_idle_process_reuse_multiple": "counts _processes",
        "test_idle_process_reuse_one": "counts _processes",
        "test_killed_child": "takes the worker to kill from _processes",
        "test_max_tasks_per_child": "takes the worker's number from _processes",
        "test_max_tasks_per_child_defaults_to_spawn_context": "reads _mp_context",
        "test_saturation": "counts _processes",
    },
    "ExecutorDeadlock": {
        "test_shutdown_deadlock_pickle": "waits for _executor_manager_thread",
    },
}
#: What the suite itself skips here.
SKIPPED: Final = {"test_hang_gh83386", "test_max_workers_too_large"}


def suite_file() -> Path | None:
    spec = importlib.util.find_spec("test")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    own = [Path(folder, "test_concurrent_futures.py") for folder in folders]
    return next((file for file in [*own, DEBIAN] if file.exists()), None)


@pytest.mark.parametrize(
    "kind", ["ProcessPoolForkserver", pytest.param("ProcessPoolSpawn", marks=pytest.mark.soak)]
)
async def test_the_standard_executors_own_tests_pass(kind: str, tmp_path: Path) -> None:
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the list of tests that don't apply is that of Python 3.11")
    suite = suite_file()
    if suite is None:
        pytest.skip("CPython's tests are not here; Debian has them in libpython3.11-testsuite")
    # Side by side: they sleep for most of their time.
    reports = await asyncio.gather(*(run(suite, kind, part, tmp_path) for part in LEFT_OUT))
    for part, report in zip(LEFT_OUT, reports, strict=True):
        assert report["failed"] == []
        assert set(LEFT_OUT[part]) <= set(report["names"]), "each is still there"
        assert report["run"] == len(report["names"]) - len(LEFT_OUT[part])
        assert {f"{kind}{name}Test" for name in LEFT_OUT} == set(report["classes"])
    skipped = {name.partition(" ")[0] for report in reports for name in report["skipped"]}
    assert skipped == SKIPPED
    assert sum(report["run"] for report in reports) == 47
    assert sum(report["submitted"] for report in reports) > 150, "this executor took the calls"


async def run(suite: Path, kind: str, part: str, folder: Path) -> Any:
    """Run the tests of one class in a process of their own; what came out."""
    report = folder / f"{part}.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, PROGRAM, suite, kind, part, json.dumps([*LEFT_OUT[part]]), report),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert report.exists(), errors.decode()
    return json.loads(report.read_text())
