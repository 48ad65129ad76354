"""The command line: `dspex ask "What is the capital of France?"`."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and leave with its exit code; what the script `dspex` calls."""
    from dspex.cli.app import app

    try:
        app(prog_name="dspex")
    except BrokenPipeError:
        # Who read our output has gone, as `head` does. Keep the interpreter from flushing to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(0)
