"""The suite as a command: ``python -m snakepit.testing.conformance -- node worker.js``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from snakepit.errors import ConfigurationError
from snakepit.testing.conformance.suite import PATIENCE, REFERENCE_TARGET, check_worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the program of the command line; the exit code: 0 if it breaks no rule."""
    options = _parser().parse_args(arguments)
    try:
        report = check_worker(
            options.command,
            rules=options.rule,
            target=options.target,
            patience=options.patience,
        )
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{report}\n")
    return 1 if report.broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m snakepit.testing.conformance",
        description="See whether a worker program keeps the rules of PROTOCOL.md.",
    )
    parser.add_argument(
        "--rule",
        action="append",
        metavar="ID",
        help="a rule, or a group of them such as cancel. (all by default)",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="how long the program may take for anything (%(default)g)",
    )
    parser.add_argument(
        "--target", default=REFERENCE_TARGET, help="what WELCOME names (%(default)s)"
    )
    parser.add_argument("command", nargs="+", help="the program and its arguments, after --")
    return parser


if __name__ == "__main__":
    sys.exit(main())
