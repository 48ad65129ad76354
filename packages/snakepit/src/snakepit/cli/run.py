"""`snakepit run`: one command of a class, in a worker process."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from snakepit.adapters.python_adapter import PythonAdapter
from snakepit.cli.failures import ExitStatus, report
from snakepit.cli.output import note, write_json
from snakepit.errors import ConfigurationError, Outcome, SnakepitError, StreamingNotSupported
from snakepit.pool.pool import Pool


def run(options: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    args, config = read_pairs(options.args), read_pairs(options.config)
    # The script's own folder is there instead, as for any installed script.
    sys.path.insert(0, os.getcwd())
    _show_output()
    adapter = PythonAdapter(options.target, config=config)
    try:
        asyncio.run(_run(adapter, options.command, args, options.timeout))
    except SnakepitError as error:
        if options.debug and error.remote_traceback:
            note(error.remote_traceback.rstrip())
        return report(error)
    return ExitStatus.OK


def read_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """The arguments that ``NAME=VALUE`` texts stand for; a value is JSON, or else the text itself.

    Raises:
        ConfigurationError: a text has another form, or a name comes twice.

    Example::

        assert read_pairs(["n=12", "name=Ada"]) == {"n": 12, "name": "Ada"}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigurationError(f"{pair!r} is no argument; write NAME=VALUE, as in number=12")
        if name in found:
            raise ConfigurationError(f"the argument {name!r} is given twice")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _show_output() -> None:
    """Have what the worker prints shown."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    output = logging.getLogger("snakepit.output")
    output.addHandler(handler)
    output.setLevel(logging.INFO)
    output.propagate = False


async def _run(
    adapter: PythonAdapter, command: str, args: dict[str, Any], timeout: float | None
) -> None:
    async with Pool(adapter, size=1, name="run") as pool:
        try:
            result = await pool.execute(command, args, timeout=timeout)
        except StreamingNotSupported as error:
            if error.outcome is not Outcome.NONE:
                raise  # of a call that the command has made
        else:
            write_json(result)
            return
        async for item in pool.execute_stream(command, args, timeout=timeout):
            write_json(item)
