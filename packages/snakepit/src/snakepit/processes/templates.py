"""Templates that adapters share: one for all workers that may be forked from the same."""

from __future__ import annotations

import asyncio
import time

from snakepit.processes import events
from snakepit.processes.spec import ProcessSpec
from snakepit.processes.template_client import TemplateProcess, UnsafeToFork
from snakepit.processes.tree import ProcessTree
from snakepit.telemetry import bus


class SharedTemplate:
    """A template that starts when it is first needed, and again when it has died."""

    def __init__(self, tree: ProcessTree, spec: ProcessSpec) -> None:
        self._tree = tree
        self._spec = spec
        self._key = spec.key()
        self._process: TemplateProcess | None = None
        self._starting = asyncio.Lock()
        self._unsafe: UnsafeToFork | None = None
        self._users = 0

    @property
    def pid(self) -> int | None:
        """The process id of the template, if it is up."""
        process = self._process
        return process.pid if process is not None and process.is_alive else None

    async def living(self) -> TemplateProcess:
        """The template's process, ready to fork.

        Raises:
            UnsafeToFork: what it imports does not survive a fork.
            WorkerStartFailed: it did not start.
        """
        async with self._starting:
            if self._unsafe is not None:
                raise self._unsafe
            if self._process is None or not self._process.is_alive:
                process = TemplateProcess(self._tree, self._spec)
                began_at = time.monotonic()
                try:
                    await process.start()
                except UnsafeToFork as error:
                    self._unsafe = error
                    if bus.listening:
                        events.template_unsafe(self._spec.target)
                    raise
                except Exception as error:
                    if bus.listening:
                        events.template_start_failed(self._spec.target, error)
                    raise
                self._process = process
                if bus.listening:
                    events.template_started(self._spec.target, process.pid, began_at)
            return self._process

    def release(self) -> None:
        """Give it back; the last user's return ends it."""
        self._users -= 1
        if self._users == 0:
            del self._tree.templates[self._key]
            if self._process is not None:
                self._process.close()

    @classmethod
    def acquire(cls, tree: ProcessTree, spec: ProcessSpec) -> SharedTemplate:
        """The one for ``spec``. Give it back with ``release``."""
        shelf = tree.templates
        key = spec.key()
        if key not in shelf:
            shelf[key] = cls(tree, spec)
        shelf[key]._users += 1
        return shelf[key]
