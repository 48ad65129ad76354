"""What a platform runs with, and where each setting may come from."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self

from snakepit.errors import ConfigurationError
from snakepit.options import seconds
from snakepit_grpc_bridge.errors import did_you_mean
from snakepit_grpc_bridge.lm.scripted import ScriptedModel
from snakepit_grpc_bridge.storage.urls import parse_url
from snakepit_grpc_bridge.variables.types.secret import Secret

__all__ = ["Settings", "time_to_live"]

_ENV_PREFIX = "DSPEX_"
#: Seconds without use after which a session expires, unless it says otherwise.
DEFAULT_TTL: Final = 3600.0
#: Sessions that may be open at a time.
MAX_SESSIONS: Final = 10_000
# The calendar of datetime ends in the year 9999.
_MOST_YEARS: Final = 100


def time_to_live(name: str, value: float | timedelta) -> float:
    """Return the seconds of an option that says after which time something is gone.

    Raises:
        ConfigurationError: it is no duration, or a longer one than any that is meant.
    """
    number = seconds(name, value)
    if number > _MOST_YEARS * 365 * 86_400.0:
        raise ConfigurationError(
            f"{name} is {value!r}, more than {_MOST_YEARS} years; None stands for never",
            details={"option": name},
        )
    return number


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a :class:`~snakepit_grpc_bridge.Platform`. Checked when made.

    Attributes:
        model: the language model: "embedded", "gguf:PATH", a name that ``dspy.LM`` takes, such as
            "openai/gpt-5-mini" (its key comes from the environment), a ``ScriptedModel``, or "none"
            for programs that ask no model.
        workers: how many processes run programs.
        api_base: the address of a server that speaks the provider's protocol, or None.
        import_allow: prefixes of the dotted paths that may be called in workers.
        timeout: the budget of one call, waiting included, in seconds or as a ``timedelta`` (kept in
            seconds); a call can ask for another.
        python: the interpreter of the workers; None is the host's own.
        storage: where sessions, variables and tools are kept: "memory", "sqlite:///PATH" or
            "postgresql://USER:PASSWORD@HOST/DATABASE". Not shown in ``repr``.
        session_ttl: seconds (or a ``timedelta``) without use after which a session expires, if it
            does not say otherwise; None for never.
        max_sessions: how many sessions may be open at a time.
        secret_keys: Fernet keys under which secrets are sealed in the storage, the newest first.
            Not shown in ``repr``.

    Raises:
        ConfigurationError: a value is wrong; the message names the setting.

    Example:
        >>> from datetime import timedelta
        >>> Settings(model="embedded", timeout=timedelta(minutes=2)).timeout
        120.0
    """

    model: str | ScriptedModel = "embedded"
    workers: int = 2
    api_base: str | None = None
    import_allow: tuple[str, ...] = ("dspy",)
    timeout: float = 120.0
    python: str | None = None
    storage: str = dataclasses.field(default="memory", repr=False)
    session_ttl: float | None = DEFAULT_TTL
    max_sessions: int = MAX_SESSIONS
    secret_keys: tuple[Secret, ...] = dataclasses.field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.model, ScriptedModel):
            _check_text("model", self.model)
        _check_text("storage", self.storage)
        parse_url(self.storage)
        _check_count("workers", self.workers)
        _check_count("max_sessions", self.max_sessions)
        if self.session_ttl is not None:
            object.__setattr__(self, "session_ttl", time_to_live("session_ttl", self.session_ttl))
        object.__setattr__(self, "secret_keys", _secrets(self.secret_keys))
        for name in ("api_base", "python"):
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        object.__setattr__(self, "timeout", seconds("timeout", self.timeout))
        object.__setattr__(self, "import_allow", _prefixes(self.import_allow))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all settings."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def load(
        cls,
        *,
        directory: Path | None = None,
        environ: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
        **explicit: Any,
    ) -> Self:
        """Gather settings: ``explicit`` > environment > configuration file > default.

        ``defaults`` replace some of the defaults: what a program wants where its user says nothing.

        The environment's names are the settings' in capitals after ``DSPEX_``
        (``DSPEX_IMPORT_ALLOW`` is separated by commas). The file is the nearest ``dspex.toml``, or
        ``pyproject.toml`` with a table ``[tool.dspex]``, from ``directory`` (the working directory)
        upwards; in one directory ``dspex.toml`` wins. Blocks for as long as it takes to read it.

        Raises:
            ConfigurationError: a key is unknown (the nearest name is given), a value is wrong, or
                the file does not parse. The message says where it stands.

        Example:
            >>> Settings.load(environ={"DSPEX_WORKERS": "4"}, model="embedded").workers
            4
        """
        _check_known(explicit, "argument")
        _check_known(defaults or {}, "defaults")
        merged = {**(defaults or {}), **_from_file(directory or Path.cwd())}
        merged |= _from_environment(os.environ if environ is None else environ)
        return cls(**(merged | explicit))


# --- checks --------------------------------------------------------------------------------------


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(
            f"{name} must be text that is not empty, it was {value!r}", details={"setting": name}
        )


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"{name} must be a whole number of at least 1, it was {value!r}",
            details={"setting": name},
        )


def _prefixes(value: object) -> tuple[str, ...]:
    given = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None
    if given is None or not all(isinstance(item, str) and _is_dotted(item) for item in given):
        raise ConfigurationError(
            "import_allow must be a list of module names, such as ['dspy', 'myapp.programs'], "
            f"it was {value!r}",
            details={"setting": "import_allow"},
        )
    return tuple(given)


def _secrets(value: object) -> tuple[Secret, ...]:
    given = value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None
    if given is None or not all(isinstance(item, (str, Secret)) and item for item in given):
        # What it was is not shown.
        raise ConfigurationError(
            "secret_keys must be a list of Fernet keys; make one with "
            "cryptography.fernet.Fernet.generate_key()",
            details={"setting": "secret_keys"},
        )
    return tuple(item if isinstance(item, Secret) else Secret(item) for item in given)


def _is_dotted(path: str) -> bool:
    return all(part.isidentifier() for part in path.split("."))


def _check_known(given: Mapping[str, Any], where: str) -> None:
    known = Settings.names()
    for name in given:
        if name not in known:
            raise ConfigurationError(
                f"unknown setting {name!r} ({where}){did_you_mean(name, known)} "
                f"(known: {', '.join(known)})",
                details={"setting": name, "known": list(known)},
            )


# --- sources -------------------------------------------------------------------------------------


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = {_ENV_PREFIX + name.upper(): name for name in Settings.names()}
    for variable, text in environ.items():
        if variable in known:
            found[known[variable]] = _read_text(variable, known[variable], text)
        elif variable.startswith(_ENV_PREFIX):
            _refuse_typo(variable, known)
    return found


def _refuse_typo(variable: str, known: Mapping[str, str]) -> None:
    # Others may use the prefix too, so only what nearly is a setting is taken for a mistake.
    near = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
    if near:
        raise ConfigurationError(
            f"the environment has {variable}, which is no setting; did you mean {near[0]}?",
            details={"setting": variable},
        )


def _read_text(variable: str, name: str, text: str) -> Any:
    try:
        match name:
            case "workers" | "max_sessions":
                return int(text)
            case "timeout" | "session_ttl":
                return float(text)
            case "import_allow" | "secret_keys":
                return tuple(part.strip() for part in text.split(",") if part.strip())
            case _:
                return text
    except ValueError as error:
        raise ConfigurationError(
            f"the environment has {variable}={text!r}, which is no number",
            details={"setting": name},
        ) from error


def _from_file(directory: Path) -> dict[str, Any]:
    start = directory.absolute()
    for folder in (start, *start.parents):
        own = folder / "dspex.toml"
        if own.is_file():
            return _checked_table(_read_toml(own), own)
        project = folder / "pyproject.toml"
        if project.is_file():
            tools = _read_toml(project).get("tool")
            if isinstance(tools, dict) and "dspex" in tools:
                return _checked_table(tools["dspex"], project)
    return {}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path} can't be read as TOML: {error}", details={"file": str(path)}
        ) from error


def _checked_table(table: object, path: Path) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigurationError(
            f"'dspex' in {path} must be a table of settings", details={"file": str(path)}
        )
    _check_known(table, str(path))
    return table
