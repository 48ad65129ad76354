"""Tools that a worker finds by their path: it sends what they take, and converts what they get."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import pytest
import tool_functions as tools

import snakepit
from snakepit_grpc_bridge.errors import NotAllowed, ValidationFailed
from snakepit_grpc_bridge.tools.paths import find_function
from snakepit_grpc_bridge.tools.schema import Schema, read_schema


async def test_a_worker_describes_and_calls_what_a_path_names() -> None:
    adapter = snakepit.PythonAdapter("tool_worker:ToolWorker")
    async with snakepit.Pool(adapter, size=1) as pool:
        plain = await pool.execute("describe", {"path": "tool_functions:greet"})
        schema = Schema.from_description(plain)
        assert schema == read_schema(tools.greet)
        guest = tools.Guest("Ann", friends=[tools.Guest("Bob")])
        given = schema.check("greet", {"guest": guest, "colors": ["red"], "at": "2024-02-29"})
        assert given["guest"] == {
            "name": "Ann",
            "age": 30,
            "friends": [{"name": "Bob", "age": 30, "friends": []}],
        }
        assert given["at"] == date(2024, 2, 29)
        call = {"path": "tool_functions.greet", "parameters": given}
        result = await pool.execute("call", call)
        assert result["guest"] == given["guest"] | {"visits": 0} | {
            "friends": [{"name": "Bob", "age": 30, "friends": [], "visits": 0}]
        }
        assert result["colors"] == {"red"}
        assert result["year"] == 2024
        # The worker decides, whatever it is sent.
        with pytest.raises(ValidationFailed) as caught:
            await pool.execute("call", {**call, "parameters": given | {"at": 5}})
        assert caught.value.details["problems"] == [
            "at: must be a date (or text as in ISO 8601), not an integer"
        ]
        with pytest.raises(NotAllowed):
            await pool.execute("describe", {"path": "os:system"})
        services = {"service", "platform", "sessions", "variables", "lm", "host"}
        loaded = await pool.execute("modules", {})
        assert [name for name in loaded if services & set(name.split("."))] == []


@pytest.mark.parametrize("path", ["statistics:mean", "statistics.mean"])
def test_paths(path: str) -> None:
    assert find_function(path, ["statistics"])([1, 3]) == 2


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("string:digits", "no function but text"),
        ("string:nothing", "no 'nothing'"),
        ("string", "no function but a module"),
        ("string:_re", "is no class path"),
        ("string:a:b", "is no class path"),
        ("", "is no class path"),
        (5, "is no class path"),
    ],
)
def test_paths_that_name_no_function(path: str, says: str) -> None:
    with pytest.raises(ValidationFailed, match=says):
        find_function(path, ["string", "builtins"])


def test_checking_by_a_description_needs_the_standard_library_alone() -> None:
    program = (
        "import sys\n"
        "from snakepit_grpc_bridge.tools.schema import Schema\n"
        f"schema = Schema.from_description({read_schema(tools.greet).describe()!r})\n"
        "schema.check('greet', {'guest': {'name': 'Ann'}, 'colors': [], 'at': '2024-02-29'})\n"
        "print(sorted({'pydantic', 'griffe', 'numpy', 'msgpack'} & set(sys.modules)))\n"
        "print([m for m in sys.modules if m.startswith('snakepit_grpc_bridge') and 'service' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout == "[]\n[]\n"
