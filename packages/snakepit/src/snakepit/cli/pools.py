"""Finding the running pools that have a control socket, and choosing one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from snakepit.cli.table import clean
from snakepit.control.client import ControlClient
from snakepit.control.folder import find_sockets
from snakepit.control.server import CONTROL_VARIABLE
from snakepit.errors import ConfigurationError

_PATIENCE = 1.0


class RunningPool(NamedTuple):
    """A pool that can be looked at; ``name`` is empty where it does not answer."""

    path: Path
    pid: int
    name: str

    def is_meant_by(self, text: str) -> bool:
        """Whether a user who wrote ``text`` can mean this one."""
        return text in (str(self.pid), self.name, f"{self.pid}:{self.name}")

    def __str__(self) -> str:
        return f"{self.pid}:{clean(self.name)}" if self.name else f"{self.pid} (does not answer)"


def choose_pool(text: str | None) -> RunningPool:
    """The pool that is meant; without ``text`` the only one.

    Raises:
        ConfigurationError: there is none, or several.
    """
    pools = find_pools()
    if not pools:
        raise ConfigurationError(
            "there is no pool of this user that can be looked at; start its program with "
            f"{CONTROL_VARIABLE}=1 in the environment"
        )
    meant = [pool for pool in pools if text is None or pool.is_meant_by(text)]
    if len(meant) == 1:
        return meant[0]
    listed = "".join(f"\n  {pool}" for pool in meant or pools)
    if meant:
        raise ConfigurationError(f"there are several pools; say which one:{listed}")
    raise ConfigurationError(f"there is no pool {text!r}; there are:{listed}")


def find_pools() -> list[RunningPool]:
    """All pools of this user that have a control socket. Takes a second for one that hangs."""
    return [pool for path in find_sockets() if (pool := _look_at(path)) is not None]


def _look_at(path: Path) -> RunningPool | None:
    try:
        with ControlClient(path, _PATIENCE) as client:
            snapshot = client.snapshot()
    except TimeoutError:
        pid = path.name.partition("-")[0]
        return RunningPool(path, int(pid) if pid.isdecimal() else 0, "")
    except OSError:
        return None  # its host has ended
    return RunningPool(path, snapshot["pid"], snapshot["name"])
