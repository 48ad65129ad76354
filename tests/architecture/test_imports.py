"""What importing each package costs and reaches, seen from a fresh interpreter."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from source_tree import SOURCES, imported_names, parse, short

HOST_NEVER_LOADS = {
    *{"cryptography", "dspy", "grpc", "litellm", "numpy", "psycopg", "ray", "sqlalchemy", "torch"},
    "xllamacpp",
}
SNAKEPIT_LOADS = {"msgpack", "snakepit"}
# What an extra installs, and the one file that may import it.
SNAKEPIT_MAY_IMPORT = {
    "packages/snakepit/src/snakepit/executor/joblib_backend.py": {"joblib"},
    "packages/snakepit/src/snakepit/hardware/nvml.py": {"pynvml"},
    "packages/snakepit/src/snakepit/telemetry/opentelemetry.py": {"opentelemetry"},
}
ML_WORDS = {
    *{"ai", "chat", "completion", "dspy", "embedding", "gguf", "inference", "llm", "llms", "lm"},
    *{"lms", "ml", "model", "models", "openai", "predict", "prediction", "prompt", "prompts"},
    *{"tensor", "tensors", "torch", "training", "transformer"},
}

PROBE = """
import json, logging, os, sys, threading
def observe():
    return {
        "threads": [thread.name for thread in threading.enumerate()],
        "handlers": len(logging.root.handlers),
        "descriptors": sorted(os.listdir("/dev/fd")),
    }
before, loaded = observe(), set(sys.modules)
__import__(sys.argv[1])
after = observe()
loaded = sorted(set(sys.modules) - loaded)
with_handlers = [
    name for name, logger in logging.root.manager.loggerDict.items()
    if any(not isinstance(h, logging.NullHandler) for h in getattr(logger, "handlers", ()))
]
print(json.dumps({"before": before, "after": after, "loaded": loaded, "loggers": with_handlers}))
"""


def import_fresh(module: str, home: Path) -> dict[str, Any]:
    """Import one module in a new interpreter whose HOME is empty, and report what it did."""
    environment = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROBE, module],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.parametrize("module", [*SOURCES, "dspex.cli"])
def test_import_does_no_work(module: str, tmp_path: Path) -> None:
    report = import_fresh(module, tmp_path)
    loaded = {name.partition(".")[0] for name in report["loaded"]}
    assert not loaded & HOST_NEVER_LOADS
    assert report["before"] == report["after"]
    assert report["loggers"] == []
    assert list(tmp_path.iterdir()) == []


def test_importing_snakepit_loads_only_itself_and_msgpack(tmp_path: Path) -> None:
    loaded = {name.partition(".")[0] for name in import_fresh("snakepit", tmp_path)["loaded"]}
    assert {name for name in loaded if name not in sys.stdlib_module_names} <= SNAKEPIT_LOADS


def test_only_tests_load_the_tools_for_tests(tmp_path: Path) -> None:
    for module in SOURCES:
        loaded = import_fresh(module, tmp_path)["loaded"]
        assert [name for name in loaded if name.startswith("snakepit.testing")] == []
    tools = SOURCES["snakepit"] / "testing"
    users = [
        f"{short(path)}:{line}: {name}"
        for folder in SOURCES.values()
        for path in folder.rglob("*.py")
        for line, name in imported_names(parse(path))
        if name.startswith("snakepit.testing") and not path.is_relative_to(tools)
    ]
    assert users == []


def test_snakepit_names_no_other_package_in_any_import() -> None:
    allowed = SNAKEPIT_LOADS | sys.stdlib_module_names
    strangers = [
        f"{short(path)}:{line}: {name}"
        for path in SOURCES["snakepit"].rglob("*.py")
        for line, name in imported_names(parse(path))
        if name.partition(".")[0] not in allowed | SNAKEPIT_MAY_IMPORT.get(short(path), set())
    ]
    assert strangers == []


def test_snakepit_speaks_no_ml() -> None:
    import snakepit

    modules = [m.name for m in pkgutil.walk_packages(snakepit.__path__, "snakepit.")]
    public = getattr(snakepit, "__all__", [name for name in vars(snakepit) if name[0] != "_"])
    members = [f"{name}.{member}" for name in public for member in public_members(name)]
    suspicious = [n for n in [*modules, *public, *members] if words(n) & ML_WORDS]
    assert suspicious == []


def public_members(name: str) -> list[str]:
    import snakepit

    value = getattr(snakepit, name)
    return [m for m in vars(value) if m[0] != "_"] if isinstance(value, type) else []


def words(name: str) -> set[str]:
    """Split `snake_case.CamelCase` into its words."""
    return {part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def test_words_are_found_whole() -> None:
    assert words("wire.LMClient.predict_all") == {"wire", "lm", "client", "predict", "all"}
    assert not words("snakepit.modelling.promptly") & ML_WORDS
