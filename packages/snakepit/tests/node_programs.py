"""The programs in Node that tests run, and why they are not run."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

NODE_FOLDER = Path(__file__).parents[1] / "node"
CONFORMANCE = ["node", str(NODE_FOLDER / "conformance/worker.js")]
BROKEN = ["node", str(NODE_FOLDER / "conformance/broken_worker.js")]
_OLDEST = 18


@functools.cache
def missing_node() -> str:
    """Why programs in Node can't be run here; empty if they can."""
    if shutil.which("node") is None:
        return "node is not installed"
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"v(\d+)\.", told.stdout)
    if version is None or int(version[1]) < _OLDEST:
        return f"node is {told.stdout.strip() or 'broken'}; it has to be {_OLDEST} or newer"
    return ""


needs_node = pytest.mark.skipif(missing_node() != "", reason=missing_node())
