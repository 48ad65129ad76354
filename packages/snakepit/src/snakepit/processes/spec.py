"""What a worker process is made of, and the command lines that start it."""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

PACKAGE_ROOT = str(Path(__file__).parents[2])
# An interpreter that lacks the package says so in one line, which the error quotes.
_START = """
import sys
try:
    from {module} import {function}
except ImportError as error:
    sys.exit(f"{{sys.executable}} can't run a worker: {{error}}. {advice}")
{function}(*sys.argv[1:])
"""
_ADVICE = "Install snakepit-pool in its environment, in the same version as in the host's"


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSpec:
    """What a worker process is made of.

    ``python`` is another interpreter, with snakepit installed; None is the host's own, whose
    ``sys.path`` the workers get. ``warm``: the arguments of the ``warm`` hook, encoded.
    ``generation`` sets apart templates that are otherwise the same: those started before and after
    the code was changed.
    """

    target: str
    python: str | None = None
    preload: tuple[str, ...] = ()
    warm: bytes
    env: dict[str, str] = field(repr=False)
    cwd: str | None = None
    generation: int = 0

    def key(self) -> Hashable:
        """Equal for processes that may be forked from the same template."""
        values = ((item.name, getattr(self, item.name)) for item in fields(self))
        comparable = (
            (name, frozenset(value.items()) if isinstance(value, dict) else value)
            for name, value in values
        )
        return type(self), tuple(comparable), os.getcwd(), tuple(self.sys_path() or ())

    def template_argv(self) -> list[str]:
        """The command line of a template."""
        return self._argv("snakepit.processes.template", "main")

    def worker_argv(self, inherited: Iterable[int]) -> list[str]:
        """The command line of a worker that is not forked; ``inherited``: as for a fork."""
        return self._argv("snakepit.worker.main", "main", *map(str, inherited))

    def sys_path(self) -> list[str] | None:
        """The module search path for the process, None for its own."""
        return None if self.python else [entry or os.getcwd() for entry in sys.path]

    def _argv(self, module: str, function: str, *arguments: str) -> list[str]:
        code = _START.format(module=module, function=function, advice=_ADVICE)
        if self.python:
            return [self.python, "-P", "-c", code, *arguments]
        # The host may have found the package by a path that its interpreter does not know by
        # itself.
        code = f"import sys; sys.path.append({PACKAGE_ROOT!r}){code}"
        return [sys.executable, "-P", "-c", code, *arguments]
