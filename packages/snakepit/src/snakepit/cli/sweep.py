"""`snakepit sweep`: what hosts that were killed have left behind."""

from __future__ import annotations

import argparse

from snakepit.cli.failures import ExitStatus
from snakepit.cli.output import write, write_json
from snakepit.control.folder import sweep_sockets
from snakepit.processes.sweep import sweep_orphans


def run(options: argparse.Namespace) -> int:
    """Look for it and end it, or say what would be done; return the exit status."""
    orphans = sweep_orphans(dry_run=options.dry_run)
    sockets = sweep_sockets(dry_run=options.dry_run)
    if options.json:
        found = [orphan._asdict() for orphan in orphans]
        write_json({"dry_run": options.dry_run, "processes": found, "sockets": sockets})
        return ExitStatus.OK
    killed, removed = ("would kill", "would remove") if options.dry_run else ("killed", "removed")
    for orphan in orphans:
        write(f"{killed} process {orphan.pid} of host {orphan.host_pid}: {orphan.title}")
    for path in sockets:
        write(f"{removed} {path}")
    if not orphans and not sockets:
        write("nothing was left behind")
    return ExitStatus.OK
