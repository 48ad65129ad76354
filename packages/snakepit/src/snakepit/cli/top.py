"""`snakepit top`: a running pool, once a second."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snakepit.cli.failures import ExitStatus
from snakepit.cli.output import note, write, write_json
from snakepit.cli.pools import choose_pool
from snakepit.cli.table import View, render
from snakepit.control.client import ControlClient
from snakepit.processes.vitals import private_memory

_INTERVAL = 1.0
_PATIENCE = 1.0


def run(options: argparse.Namespace) -> int:
    """Show the pool until the user quits, or once; return the exit status."""
    pool = choose_pool(options.pool)
    with Watch(pool.path) as watch:
        if options.json:
            view = watch.look()
            write_json({**view.snapshot, "memory": view.memory})
        elif options.once or not sys.stdout.isatty():
            # In a pipe it may be as wide as it likes.
            columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1 << 10
            for line in render(watch.look(), columns):
                write(line)
        else:
            _show(watch)
    return ExitStatus.OK


def _show(watch: Watch) -> None:
    from snakepit.cli.terminal import Screen

    try:
        with Screen() as screen:
            while True:
                size = shutil.get_terminal_size()
                screen.draw(render(watch.look(), size.columns, size.lines))
                if screen.wait_for_key("qQ", _INTERVAL):
                    return
    except KeyboardInterrupt:
        return  # one of the two ways to quit
    except ConnectionError:
        note("the pool has ended")


class Watch:
    """Looks at one pool again and again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client: ControlClient | None = None
        self._last: Mapping[str, Any] | None = None
        self._heard_at = time.monotonic()

    def look(self) -> View:
        """The pool now; if it does not answer, as it was, with a notice.

        Raises:
            TimeoutError: it has never answered.
            ConnectionError: it is gone.
        """
        before = self._last
        try:
            if self._client is None:
                self._client = self._connect()
            snapshot = self._client.snapshot()
        except TimeoutError:
            self.close()
            if before is None:
                raise
            silent_s = time.monotonic() - self._heard_at
            notice = f"NO ANSWER for {silent_s:.0f} s, its event loop may be blocked"
            return View(snapshot=before, notice=notice)
        self._last, self._heard_at = snapshot, time.monotonic()
        return View(snapshot=snapshot, before=before, memory=_memory_of(snapshot["workers"]))

    def _connect(self) -> ControlClient:
        try:
            return ControlClient(self._path, _PATIENCE)
        except FileNotFoundError as error:  # it was there when it was chosen
            raise ConnectionResetError("the pool has ended") from error

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _memory_of(workers: list[Mapping[str, Any]]) -> dict[str, int]:
    """What each worker has of its own. Read here, so that it costs the pool nothing."""
    found: dict[str, int] = {}
    for worker in workers:
        try:
            found[worker["worker_id"]] = private_memory(worker["pid"])
        except OSError:
            continue  # it has ended, or its pid means nothing here
    return found
