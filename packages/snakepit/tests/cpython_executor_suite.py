"""Runs CPython's own tests of ProcessPoolExecutor against snakepit's. A program of its own: the
tests look after threads and children of the whole process.

    python cpython_executor_suite.py SUITE KIND PART LEFT_OUT REPORT

SUITE is CPython's ``test_concurrent_futures.py``; KIND and PART say which of its classes to run, as
in "ProcessPoolSpawn" and "Wait" for ProcessPoolSpawnWaitTest; LEFT_OUT is a JSON list of names of
tests. What came out is written to the file REPORT, as JSON.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import snakepit
from snakepit.executor.errors import RemoteTraceback

MODULE = "test_concurrent_futures"
#: What programs that a test starts begin with; their own import of the suite is changed, too.
PRELUDE = """
import sys
sys.path[:] = {path!r}
import cpython_executor_suite
cpython_executor_suite.take_the_place_of_the_standard_one()
"""

submitted = 0


class Counted(snakepit.ProcessPoolExecutor):
    """Says how many calls it took."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        global submitted
        submitted += 1
        return super().submit(fn, *args, **kwargs)


def take_the_place_of_the_standard_one() -> None:
    """Whatever imports the standard executor from now on gets snakepit's."""
    Counted.__name__ = "ProcessPoolExecutor"
    vars(concurrent.futures)["ProcessPoolExecutor"] = Counted
    vars(concurrent.futures.process)["ProcessPoolExecutor"] = Counted
    vars(concurrent.futures.process)["_RemoteTraceback"] = RemoteTraceback


def load(suite: Path, folder: str) -> Any:
    """Import the suite under a name under which workers find it, too."""
    Path(folder, f"{MODULE}.py").symlink_to(suite)
    sys.path.append(folder)
    module: Any = __import__(MODULE)
    run = module.assert_python_ok

    def assert_python_ok(option: str, source: str) -> Any:
        source = source.replace(f"from test.{MODULE} ", f"from {MODULE} ")
        return run(option, PRELUDE.format(path=sys.path) + source)

    module.assert_python_ok = assert_python_ok
    return module


def classes_of(module: Any, kind: str) -> list[str]:
    """The names of the classes whose tests are for a way of starting processes."""
    return [
        name
        for name, value in vars(module).items()
        if name.startswith(kind) and name.endswith("Test") and isinstance(value, type)
    ]


def main(suite: str, kind: str, part: str, left_out: str, report_file: str) -> None:
    take_the_place_of_the_standard_one()
    with tempfile.TemporaryDirectory() as folder:
        module = load(Path(suite), folder)
        case = getattr(module, f"{kind}{part}Test")
        names = unittest.defaultTestLoader.getTestCaseNames(case)
        chosen = [case(name) for name in names if name not in json.loads(left_out)]
        output = io.StringIO()
        runner = unittest.TextTestRunner(stream=output, verbosity=2)
        result = runner.run(unittest.TestSuite(chosen))
        unittest.doModuleCleanups()
    report = {
        "classes": classes_of(module, kind),
        "names": names,
        "run": result.testsRun,
        "skipped": [str(test) for test, _ in result.skipped],
        "failed": [f"{test}\n{text}" for test, text in [*result.failures, *result.errors]],
        "submitted": submitted,
        "output": output.getvalue(),
    }
    Path(report_file).write_text(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
