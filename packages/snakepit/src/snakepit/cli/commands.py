"""The commands and their options. What a command needs is imported when it runs, not before."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from snakepit.version import __version__

_EPILOG = """\
Results go to standard output, all else to standard error.

Exit statuses: 0 done; 1 failed; 2 wrong usage or input; 124 out of time; 130 interrupted.
"""
_POOL_HELP = """\
The pool's host has to run with SNAKEPIT_CONTROL=1 in its environment, as the same user on the
same machine. POOL is the host's process id, the pool's name, or PID:NAME.
"""


def run_command(arguments: Sequence[str]) -> int:
    """Run the command that the arguments name; return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = import_module(options.module).run(options)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        from snakepit.cli.failures import report

        status = report(error)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="snakepit",
        description="Look after pools of worker processes, and try out their workers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"snakepit {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_doctor(commands)
    _add_run(commands)
    _add_top(commands)
    _add_dump(commands)
    _add_sweep(commands)
    return parser


def _add(commands: Any, name: str, description: str, epilog: str = "") -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=description,
        description=f"{description[0].upper()}{description[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(module=f"snakepit.cli.{name}")
    return command


def _add_doctor(commands: Any) -> None:
    doctor = _add(
        commands,
        "doctor",
        "say what works on this machine, what does not, and the remedy",
        "Starts a worker and calls it. Exit status 1 if something does not work that is necessary.",
    )
    doctor.add_argument("--json", action="store_true", help="print one JSON object")


def _add_run(commands: Any) -> None:
    run = _add(
        commands,
        "run",
        "run one command of a class in a worker process, and print its result as JSON",
        "A value is read as JSON, or is the text itself if it is none: number=12 name=Ada "
        "ids='[1, 2]'.\nA stream prints its items, one a line. What the worker prints goes to "
        "standard error.\nModules are looked for in the working directory, too.",
    )
    run.add_argument("target", metavar="MODULE:Class", help="the worker's class")
    run.add_argument("command", metavar="COMMAND", help="one of its commands")
    # With a default, or else argparse calls them required where another one is missing.
    run.add_argument(
        "args", metavar="NAME=VALUE", nargs="*", default=[], help="the command's arguments"
    )
    run.add_argument(
        "--config",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an argument for constructing the class; may be given several times",
    )
    run.add_argument("--timeout", metavar="SECONDS", type=float, help="stop the command after that")
    run.add_argument(
        "--debug", action="store_true", help="show the traceback of what the command raised"
    )


def _add_top(commands: Any) -> None:
    top = _add(
        commands,
        "top",
        "show a running pool, once a second: workers, queue, rates, slow calls",
        _POOL_HELP + "Quit with q. If standard output is no terminal, it shows the pool once.",
    )
    _add_pool(top)
    top.add_argument("--once", action="store_true", help="show it once, and end")
    top.add_argument("--json", action="store_true", help="print it once, as one JSON object")


def _add_dump(commands: Any) -> None:
    dump = _add(commands, "dump", "print the Python stacks of a running pool's workers", _POOL_HELP)
    _add_pool(dump)
    dump.add_argument("--worker", metavar="ID", help="this worker's alone")


def _add_pool(command: argparse.ArgumentParser) -> None:
    command.add_argument("pool", metavar="POOL", nargs="?", help="which one, if there are several")


def _add_sweep(commands: Any) -> None:
    sweep = _add(
        commands,
        "sweep",
        "end what hosts that were killed have left behind",
        "Processes of a host that lives, and of other users, are never touched.",
    )
    sweep.add_argument("--dry-run", action="store_true", help="only say what would be done")
    sweep.add_argument("--json", action="store_true", help="print one JSON object")
