"""The linters' settings do what they say: each bad sample makes its tool fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT, SOURCES

BIN = Path(sys.executable).parent

BRANCHES = "".join(f"    if x == {n}:\n        x += {n}\n" for n in range(11))
STATEMENTS = "".join(f"    a{n} = x\n    print(a{n})\n" for n in range(30))

RUFF_SAMPLES = {
    "C901": f"def f(x: int) -> int:\n{BRANCHES}    return x\n",
    "PLR0915": f"def f(x: int) -> None:\n{STATEMENTS}",
    "TID252": "from . import sibling\n\nsibling.f()\n",
    "E501": f"x = {'1' * 100}\n",
    "F401": "import os\n",
    "I001": "import sys\nimport os\n\nprint(os, sys)\n",
    "UP007": "from typing import Union\n\nx: Union[int, str] = 1\n",
    "B006": "def f(x: list[int] = []) -> list[int]:\n    return x\n",
    "ERA001": "# x = compute(1)\n",
    "ARG001": "def f(x: int) -> None:\n    return None\n",
    "T201": "print(1)\n",
    "S301": "import pickle\n\npickle.loads(b'')\n",
    "S602": "import subprocess\n\nsubprocess.run('ls', shell=True, check=True)\n",
    "PT011": "import pytest\n\nwith pytest.raises(ValueError):\n    int('x')\n",
    "RUF006": "import asyncio\n\n\nasync def f() -> None:\n    asyncio.create_task(f())\n",
    "ASYNC251": "import time\n\n\nasync def f() -> None:\n    time.sleep(1)\n",
    "PGH003": "x: int = 'a'  # type: ignore\n",
}

MYPY_SAMPLES = {
    "no-untyped-def": "def f(x): return x\n",
    "type-arg": "def f(x: list) -> None: ...\n",
    "no-any-return": "import json\ndef f() -> int: return json.loads('1')\n",
    "unreachable": "def f(x: int) -> None:\n    if isinstance(x, str):\n        f(x)\n",
    "unused-ignore": "x: int = 1  # type: ignore[assignment]\n",
    "possibly-undefined": "def f(c: bool) -> int:\n    if c:\n        x = 1\n    return x\n",
}

BAD_IMPORTS = {
    "upwards": (
        "snakepit/errors/base.py",
        "import dspex",
        "dspex > snakepit_grpc_bridge > snakepit",
    ),
    "heavy": ("snakepit/errors/base.py", "import pydantic", "snakepit is light"),
    "engine": ("snakepit_grpc_bridge/errors.py", "import dspy", "the host never imports dspy"),
    "lazily": ("dspex/errors.py", "def f():\n    import ray", "the host never imports dspy"),
    "database": (
        "snakepit_grpc_bridge/storage/memory.py",
        "import sqlalchemy",
        "the host never imports dspy",
    ),
    "inner": ("snakepit/wire/frames.py", "import snakepit.processes", "inside snakepit"),
    "impure": ("snakepit/calls/scheduler.py", "import socket", "pure cores do no IO"),
}


def run(tool: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / tool), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False)


def test_ruff(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for code, sample in RUFF_SAMPLES.items():
        (tmp_path / f"{code.lower()}.py").write_text(sample)
    (tmp_path / "unformatted.py").write_text("x = {  'a':1 }\n")
    found = run("ruff", "check", "--no-cache", "--output-format=concise", ".", cwd=tmp_path)
    silent = [c for c in RUFF_SAMPLES if not reported(found.stdout, f"{c.lower()}.py", c)]
    assert silent == [], found.stdout
    formatted = run("ruff", "format", "--no-cache", "--check", "unformatted.py", cwd=tmp_path)
    assert formatted.returncode == 1


def test_mypy(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for code, sample in MYPY_SAMPLES.items():
        (tmp_path / f"{code.replace('-', '_')}.py").write_text(sample)
    found = run("mypy", "--cache-dir", str(ROOT / ".mypy_cache/samples"), ".", cwd=tmp_path)
    silent = [
        code
        for code in MYPY_SAMPLES
        if not reported(found.stdout, f"{code.replace('-', '_')}.py", f"[{code}]")
    ]
    assert silent == [], found.stdout


def reported(output: str, file: str, code: str) -> bool:
    return any(line.startswith(file) and code in line for line in output.splitlines())


@pytest.mark.parametrize("sample", BAD_IMPORTS)
def test_import_linter(sample: str, tmp_path: Path) -> None:
    file, statement, contract = BAD_IMPORTS[sample]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name, folder in SOURCES.items():
        shutil.copytree(folder, tmp_path / name)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{statement}\n")
    found = run("lint-imports", "--no-cache", cwd=tmp_path)
    assert found.returncode == 1, found.stdout + found.stderr
    assert any(contract in ln and "BROKEN" in ln for ln in found.stdout.splitlines()), found.stdout
