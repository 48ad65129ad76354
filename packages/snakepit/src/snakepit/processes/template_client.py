"""The host's side of a template: start it, ask it for workers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Sequence
from typing import Any

from snakepit._logs import steady_logger
from snakepit.errors import WorkerStartFailed, error_from_wire
from snakepit.processes import events
from snakepit.processes.channel import ChannelClosed, Message
from snakepit.processes.host_channel import HostChannel
from snakepit.processes.output import OutputTail
from snakepit.processes.spec import ProcessSpec
from snakepit.processes.tree import ExitReport, ProcessTree, wait_for_report
from snakepit.telemetry import bus
from snakepit.version import __version__
from snakepit.worker.target import advice_on

# Seconds that a template may leave all who ask without an answer; then it is frozen.
_FORK_PATIENCE = 2.0
logger = steady_logger("snakepit.worker")


class UnsafeToFork(Exception):
    """The template holds something that does not survive a fork."""


class TemplateLost(Exception):
    """The template died, or was frozen, while a fork was asked for; another one may do it.

    Whether it has forked is not known: the worker, if there is one, ends when its channels are
    closed.
    """


class TemplateProcess:
    """A running template. Belongs to one event loop."""

    def __init__(self, tree: ProcessTree, spec: ProcessSpec) -> None:
        self._tree = tree
        self._spec = spec
        self._loop = asyncio.get_running_loop()
        self._ids = itertools.count(1)
        self._forking: dict[int, asyncio.Future[int]] = {}
        self._answers = 0
        self._prepared: asyncio.Future[None] = self._loop.create_future()
        with contextlib.ExitStack() as unused:  # where descriptors are scarce
            ours, self._theirs = map(unused.enter_context, socket.socketpair())
            read, self._output_write = os.pipe()
            unused.pop_all()
        self._channel = HostChannel(ours, self._handle, self._lose)
        self._output = OutputTail(read, f"template of {spec.target}")
        self._alive = True
        self._exited: asyncio.Future[ExitReport] | None = None
        self.pid: int | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it can still be asked for workers."""
        return self._alive

    @property
    def _has_started(self) -> bool:
        """Whether it has imported what it was told to."""
        prepared = self._prepared
        return prepared.done() and not prepared.cancelled() and prepared.exception() is None

    async def start(self) -> None:
        """Start the process and have it import and warm up what its workers need.

        Raises:
            UnsafeToFork: what it imported does not survive a fork.
            WorkerStartFailed: it died, or the import or the ``warm`` hook raised; the cause is
                chained.
        """
        try:
            fds = (self._theirs.fileno(), self._output_write)
            pid = self.pid = await self._tree.spawn(
                self._spec.template_argv(), env=self._spec.env, cwd=self._spec.cwd, fds=fds
            )
            self._exited = self._tree.watch(pid)
            self._exited.add_done_callback(lambda _: self._tree.forget(pid))
            self._close_theirs()
            await self._prepare()
        except (ChannelClosed, TemplateLost) as error:
            failure = await self._death()
            self.close()
            raise failure from error
        except BaseException:
            self.close()
            raise

    async def _prepare(self) -> None:
        self._channel.send(
            {
                "op": "prepare",
                "version": __version__,
                "sys_path": self._spec.sys_path(),
                "target": self._spec.target,
                "preload": list(self._spec.preload),
                "warm": self._spec.warm.hex(),
            }
        )
        await self._prepared

    async def fork(self, fds: tuple[int, ...], inherited: Sequence[int]) -> int:
        """Fork a worker that owns duplicates of ``fds``; return its pid.

        ``inherited``: the numbers that those are to have that it inherits from this process.

        Raises:
            WorkerStartFailed: the fork failed.
            TemplateLost: the template died, or was frozen and is dead now.
        """
        number = next(self._ids)
        future: asyncio.Future[int] = self._loop.create_future()
        self._forking[number] = future
        try:
            message = {"op": "fork", "id": number, "inherited": list(inherited)}
            self._channel.send(message, fds)
            while not future.done():
                answers = self._answers
                await asyncio.wait([future], timeout=_FORK_PATIENCE)
                if not future.done() and answers == self._answers:
                    self._lose()
            return future.result()
        except ChannelClosed as error:
            raise TemplateLost from error
        finally:
            self._forking.pop(number, None)

    def close(self) -> None:
        """End the template, which may hang in user code; its workers live on."""
        self._close(planned=True)

    def _close(self, *, planned: bool) -> None:
        if self._alive:
            self._alive = False
            if bus.listening and self._has_started:
                events.template_terminated(self._spec.target, self.pid, planned=planned)
            if self.pid is not None:
                self._tree.kill(self.pid)
            self._channel.close()
            self._prepared.cancel()
        self._close_theirs()
        self._output.close()

    def _close_theirs(self) -> None:
        if self._output_write >= 0:
            self._theirs.close()
            os.close(self._output_write)
            self._output_write = -1

    def _lose(self) -> None:
        """It is dead, or as good as dead: whoever waits has to ask another one."""
        starting = not self._prepared.done()
        waiting: list[asyncio.Future[Any]] = [self._prepared, *self._forking.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(TemplateLost())
        if starting:
            self._channel.close()  # start() looks how it ended
        else:
            self._close(planned=False)

    def _handle(self, message: Message) -> None:
        match message["event"]:
            case "ready":
                for warning in message["warnings"]:
                    logger.warning("%s is forked all the same: %s", self._spec.target, warning)
                self._prepared.set_result(None)
            case "unsafe":
                self._prepared.set_exception(UnsafeToFork("; ".join(message["reasons"])))
            case "refused":
                cause = error_from_wire(message["error"])
                advice = advice_on(cause, host_path=self._spec.python is None)
                failure = WorkerStartFailed(
                    f"{self._spec.target} can't be imported and warmed up: {cause}{advice}"
                )
                failure.__cause__ = cause
                self._prepared.set_exception(failure)
            case "forked":
                self._answers += 1
                future = self._forking.get(message["id"])
                if future is None or future.done():
                    self._tree.kill(message["pid"])  # nobody waits for it any more
                else:
                    future.set_result(message["pid"])
            case "fork_failed":
                self._answers += 1
                future = self._forking.get(message["id"])
                if future is not None and not future.done():
                    error = WorkerStartFailed(f"a worker can't be forked: {message['error']}")
                    future.set_exception(error)

    async def _death(self) -> WorkerStartFailed:
        report = ExitReport()
        if self._exited is not None and self.pid is not None:
            await wait_for_report(self._exited, self.pid)
            report = self._exited.result() if self._exited.done() else report
        output = self._output.text()
        tail = f"; its last output was:\n{output}" if output else ""
        return WorkerStartFailed(
            f"the template process of {self._spec.target} {report}{tail}",
            details={"last_output": output, "exit_code": report.code, "signal": report.signal},
        )
