"""What opening a storage loads, seen from a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json, sys
sys.path.insert(0, {folder!r})
from storage_tables import SCHEMA
from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.storage import open_storage

for missing in {missing!r}:
    sys.modules[missing] = None
try:
    open_storage({url!r}, SCHEMA)
    said = None
except ConfigurationError as error:
    said = error.message
loaded = [name for name in ("sqlalchemy", "psycopg", "sqlite3") if sys.modules.get(name)]
print(json.dumps({{"said": said, "loaded": loaded}}))
"""


def opened(url: str, *missing: str) -> dict[str, Any]:
    folder = __file__.rpartition("/storage/")[0]
    script = SCRIPT.format(folder=folder, missing=missing, url=url)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize(
    ("url", "loaded"),
    [
        ("memory", []),
        ("sqlite:///state.db", ["sqlalchemy", "sqlite3"]),
        ("postgresql://localhost/x", ["sqlalchemy", "psycopg"]),
    ],
)
def test_only_what_the_url_asks_for_is_loaded(url: str, loaded: list[str]) -> None:
    assert opened(url) == {"said": None, "loaded": loaded}


@pytest.mark.parametrize(
    ("url", "missing", "extra"),
    [
        ("sqlite:///state.db", "sqlalchemy", "[storage]"),
        ("postgresql://localhost/x", "sqlalchemy", "[postgres]"),
        ("postgresql://localhost/x", "psycopg", "[postgres]"),
    ],
)
def test_a_missing_package_is_told_with_how_to_install_it(
    url: str, missing: str, extra: str
) -> None:
    said = opened(url, missing)["said"]
    assert missing in said
    assert f"pip install 'snakepit-grpc-bridge{extra}'" in said
