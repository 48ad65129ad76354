"""`snakepit dump`: what the workers of a running pool are doing."""

from __future__ import annotations

import argparse

from snakepit.cli.failures import ExitStatus, report
from snakepit.cli.output import write
from snakepit.cli.pools import choose_pool
from snakepit.cli.table import clean
from snakepit.control.client import ControlClient
from snakepit.errors import SnakepitError

# One that may run many calls has seven seconds to answer, then two to react to the signal.
_PATIENCE = 10.0


def run(options: argparse.Namespace) -> int:
    """Print the stacks of one worker, or of all; return the exit status."""
    pool = choose_pool(options.pool)
    status = ExitStatus.OK
    with ControlClient(pool.path, _PATIENCE) as client:
        workers = {each["worker_id"]: each["pid"] for each in client.snapshot()["workers"]}
        for worker_id in workers if options.worker is None else [options.worker]:
            try:
                stacks = client.stacks(worker_id)
            except SnakepitError as error:
                status = max(status, report(error))
                continue
            write(f"worker {clean(worker_id)} (pid {workers.get(worker_id)})\n{stacks.rstrip()}\n")
    return status
