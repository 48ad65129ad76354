"""The host's side of a template: start it, ask it for workers."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from snakepit.errors import WorkerStartFailed, error_from_wire
from snakepit.processes.channel import Channel, ChannelClosed, Message
from snakepit.processes.output import OutputTail
from snakepit.processes.tree import CAUSE_PATIENCE, PACKAGE_ROOT, ExitReport, ProcessTree

_TEMPLATE_CODE = "from snakepit.processes.template import main; main(3)"
_WORKER_CODE = (
    "from snakepit.worker.main import WorkerDescriptors, run_worker; "
    "run_worker(WorkerDescriptors(3, 4))"
)


class UnsafeToFork(Exception):
    """The template holds something that does not survive a fork."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessSpec:
    """What a worker process is made of.

    ``python`` is another interpreter, with snakepit installed; None is the host's own, whose
    ``sys.path`` the workers get.
    """

    target: str
    python: str | None = None
    preload: tuple[str, ...] = ()
    env: dict[str, str] | None = field(default=None, repr=False)
    cwd: str | None = None

    def template_argv(self) -> list[str]:
        """The command line of a template."""
        return self._argv(_TEMPLATE_CODE)

    def worker_argv(self) -> list[str]:
        """The command line of a worker that is not forked."""
        return self._argv(_WORKER_CODE)

    def sys_path(self) -> list[str] | None:
        """The module search path for the process, None for its own."""
        return None if self.python else [entry or os.getcwd() for entry in sys.path]

    def _argv(self, code: str) -> list[str]:
        if self.python:
            return [self.python, "-P", "-c", code]
        # The host may have found the package by a path that its interpreter does not know by
        # itself.
        return [
            sys.executable,
            "-P",
            "-c",
            f"import sys; sys.path.append({PACKAGE_ROOT!r}); {code}",
        ]


class TemplateProcess:
    """A running template. Belongs to one event loop."""

    def __init__(self, tree: ProcessTree, spec: ProcessSpec) -> None:
        self._tree = tree
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._forking: dict[int, asyncio.Future[int]] = {}
        self._prepared: asyncio.Future[None] = self._loop.create_future()
        ours, self._theirs = socket.socketpair()
        ours.setblocking(False)
        self._channel = Channel(ours)
        read, self._output_write = os.pipe()
        self._output = OutputTail(read, f"template of {spec.target}")
        self._alive = True
        self._pid: int | None = None
        self._loop.add_reader(ours, self._on_readable)

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked for workers."""
        return self._alive

    async def start(self) -> None:
        """Start the process and have it import and warm up what its workers need.

        Raises:
            UnsafeToFork: what it imported does not survive a fork.
            WorkerStartFailed: it died, or the import or the ``warm`` hook raised; the cause is
                chained.
        """
        try:
            fds = (self._theirs.fileno(), self._output_write)
            self._pid = await self._tree.spawn(
                self._spec.template_argv(), env=self._spec.env, cwd=self._spec.cwd, fds=fds
            )
            self._close_theirs()
            self._channel.send(
                {
                    "op": "prepare",
                    "sys_path": self._spec.sys_path(),
                    "target": self._spec.target,
                    "preload": list(self._spec.preload),
                }
            )
            await self._prepared
        except ChannelClosed as error:
            raise await self._start_failure() from error
        except BaseException:
            self.close()
            raise

    async def fork(self, fds: tuple[int, int, int]) -> int:
        """Fork a worker that owns duplicates of ``fds``; return its pid.

        Raises:
            WorkerStartFailed: the fork failed, or the template died.
        """
        number = next(self._ids)
        future: asyncio.Future[int] = self._loop.create_future()
        self._forking[number] = future
        try:
            self._channel.send({"op": "fork", "id": number}, fds)
            return await future
        except ChannelClosed as error:
            raise await self._start_failure() from error
        except asyncio.CancelledError:
            self.close()  # it may be frozen; the next start makes a new one
            raise
        finally:
            self._forking.pop(number, None)

    def close(self) -> None:
        """End the template, which may hang in user code; its workers live on."""
        if self._alive:
            self._alive = False
            if self._pid is not None:
                self._tree.kill(self._pid)
            self._loop.remove_reader(self._channel)
            self._channel.close()
            self._prepared.cancel()
        self._close_theirs()
        self._output.close()

    def _close_theirs(self) -> None:
        if self._output_write >= 0:
            self._theirs.close()
            os.close(self._output_write)
            self._output_write = -1

    def _on_readable(self) -> None:
        try:
            for message, _ in self._channel.receive():
                self._handle(message)
        except ChannelClosed:
            waiting: list[asyncio.Future[Any]] = [self._prepared, *self._forking.values()]
            for future in waiting:
                if not future.done():
                    future.set_exception(ChannelClosed("the template died"))
            self.close()

    def _handle(self, message: Message) -> None:
        match message["event"]:
            case "ready":
                self._prepared.set_result(None)
            case "unsafe":
                self._prepared.set_exception(UnsafeToFork("; ".join(message["reasons"])))
            case "refused":
                cause = error_from_wire(message["error"])
                failure = WorkerStartFailed(
                    f"{self._spec.target} can't be imported and warmed up: {cause}"
                )
                failure.__cause__ = cause
                self._prepared.set_exception(failure)
            case "forked":
                future = self._forking.get(message["id"])
                if future is None or future.done():
                    self._tree.kill(message["pid"])  # nobody waits for it any more
                else:
                    future.set_result(message["pid"])
            case "fork_failed":
                future = self._forking.get(message["id"])
                if future is not None and not future.done():
                    error = WorkerStartFailed(f"a worker can't be forked: {message['error']}")
                    future.set_exception(error)

    async def _start_failure(self) -> WorkerStartFailed:
        output = self._output.text()
        tail = f"; its last output was:\n{output}" if output else ""
        report = ExitReport()
        if self._pid is not None:
            exited = self._tree.watch(self._pid)
            await asyncio.wait([exited], timeout=CAUSE_PATIENCE)
            report = exited.result() if exited.done() else report
            self._tree.forget(self._pid)
        return WorkerStartFailed(
            f"the template process of {self._spec.target} {report}{tail}",
            details={
                "exit_code": report.code,
                "signal": report.signal,
                "last_output": output,
            },
        )
