"""The checks around every test are on: each sample leaves something behind and must fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Seconds; it takes six on an idle machine. One that is cut off leaves what it was to find.
LIMIT = 150
pytestmark = pytest.mark.timeout(LIMIT + 20)
ROOT = Path(__file__).parents[2]

SAMPLES = """
import asyncio, os, subprocess, sys, tempfile, threading
kept = []

async def test_clean(tmp_path):
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert await asyncio.to_thread(tmp_path.exists)

def test_child():
    kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_zombie():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def test_orphan():
    subprocess.run(["/bin/sh", "-c", "sleep 31 >/dev/null 2>&1 &"], check=True)

def test_descriptor():
    os.pipe()

def test_thread():
    threading.Thread(target=threading.Event().wait, daemon=True, name="t-left").start()

def test_shared_memory():
    kept.append(tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="leak-check-"))

async def test_task():
    kept.append(asyncio.create_task(asyncio.Event().wait()))

async def fail():
    raise ValueError("lost")

async def test_lost_exception():
    await asyncio.wait([asyncio.create_task(fail())])

async def test_never_awaited():
    asyncio.Event().wait()
"""

COMPLAINTS = {
    # The first and the third may not have come to rest, or to their own program, yet.
    "child": r"process \d+ \([RDS]\): .*input\(\)",
    "zombie": r"process \d+ \(Z\)",
    "orphan": r"process \d+ \([RDS]\): (sleep 31|/bin/sh)",
    "descriptor": r"descriptor \d+: pipe",
    "thread": "thread t-left",
    "shared_memory": "shared memory leak-check-",
    "task": "tasks are still running",
    "lost_exception": "Task exception was never retrieved",
    "never_awaited": "coroutine 'Event.wait' was never awaited",
}


def test_what_is_left_behind_fails_the_test_that_left_it(tmp_path: Path) -> None:
    report = run(tmp_path, SAMPLES)
    sections = re.split(r"\n_+ (?:ERROR at \w+ of )?test_(\w+) _+\n", report)
    for name, complaint in COMPLAINTS.items():
        own = [
            text
            for title, text in zip(sections[1::2], sections[2::2], strict=True)
            if title == name
        ]
        assert any(re.search(complaint, text) for text in own), f"test_{name}: {own or report}"
    assert "test_clean" not in report, report


def run(folder: Path, source: str) -> str:
    """Run pytest with the repository's settings, but for a shorter wait."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "tests/support", folder / "tests/support")
    impatient = "\nimport leak_check\nWAIT = leak_check.WAIT = 0.3\n"
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text() + impatient)
    (folder / "tests/test_sample.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout
