"""Settings: their checks, and which source wins."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from snakepit.errors import ConfigurationError
from snakepit_grpc_bridge.settings import Settings


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"workers": 0}, "workers must be a whole number of at least 1"),
        ({"workers": -1}, "workers"),
        ({"workers": True}, "workers"),
        ({"timeout": 0}, "timeout is 0; it has to be a positive number"),
        ({"timeout": timedelta(seconds=-1)}, "timeout is datetime"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"timeout": "5"}, "timeout is '5'"),
        ({"session_ttl": 0}, "session_ttl is 0"),
        ({"max_sessions": 0}, "max_sessions"),
        ({"storage": "mysql://host/db"}, "storage"),
        ({"secret_keys": "short"}, "secret_keys"),
        ({"model": " "}, "model must be text"),
        ({"import_allow": "dspy"}, "import_allow must be a list"),
        ({"import_allow": ["my app"]}, "import_allow"),
        ({"api_base": 3}, "api_base"),
    ],
)
def test_wrong_values_name_the_setting(values: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Settings(**values)


def test_values_are_normalized() -> None:
    settings = Settings(timeout=timedelta(minutes=2), import_allow=["dspy", "app.programs"])  # type: ignore[arg-type]
    assert settings.timeout == 120.0
    assert settings.import_allow == ("dspy", "app.programs")


def test_explicit_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.dspex]\nmodel = 'file'\nworkers = 3\ntimeout = 7\nimport_allow = ['dspy', 'app']\n"
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    environ = {"DSPEX_MODEL": "env", "DSPEX_WORKERS": "4", "PATH": "/bin"}
    settings = Settings.load(directory=below, environ=environ, model="explicit")
    assert (settings.model, settings.workers, settings.timeout) == ("explicit", 4, 7.0)
    assert settings.import_allow == ("dspy", "app")
    assert settings.api_base is None


def test_the_nearest_file_wins_and_its_own_file_before_the_projects(tmp_path: Path) -> None:
    (tmp_path / "dspex.toml").write_text("workers = 5\n")
    (tmp_path / "pyproject.toml").write_text("[tool.dspex]\nworkers = 6\n")
    below = tmp_path / "sub"
    below.mkdir()
    (below / "pyproject.toml").write_text("[project]\nname = 'no table of ours'\n")
    assert Settings.load(directory=below, environ={}).workers == 5


def test_a_programs_own_defaults_come_last(tmp_path: Path) -> None:
    def workers(environ: dict[str, str], **explicit: int) -> int:
        return Settings.load(
            directory=tmp_path, environ=environ, defaults={"workers": 1}, **explicit
        ).workers

    assert workers({}) == 1
    (tmp_path / "dspex.toml").write_text("workers = 5\n")
    assert workers({}) == 5
    assert workers({"DSPEX_WORKERS": "3"}) == 3
    assert workers({"DSPEX_WORKERS": "3"}, workers=4) == 4
    with pytest.raises(ConfigurationError, match="did you mean 'workers'"):
        Settings.load(directory=tmp_path, environ={}, defaults={"worker": 1})


def test_unknown_keys_get_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'workers'"):
        Settings.load(directory=tmp_path, environ={}, worker=2)
    (tmp_path / "dspex.toml").write_text("modle = 'x'\n")
    with pytest.raises(ConfigurationError, match=r"dspex\.toml.*did you mean 'model'"):
        Settings.load(directory=tmp_path, environ={})
    (tmp_path / "dspex.toml").unlink()
    with pytest.raises(ConfigurationError, match="did you mean DSPEX_WORKERS"):
        Settings.load(directory=tmp_path, environ={"DSPEX_WORKER": "2"})


def test_unreadable_sources_say_where(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="DSPEX_WORKERS='many'"):
        Settings.load(directory=tmp_path, environ={"DSPEX_WORKERS": "many"})
    (tmp_path / "dspex.toml").write_text("workers = = 2")
    with pytest.raises(ConfigurationError, match="can't be read as TOML"):
        Settings.load(directory=tmp_path, environ={})
