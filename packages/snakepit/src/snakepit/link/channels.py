"""The pairs of ends through which a host and a worker talk."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import NamedTuple

from snakepit.worker.marks import create_mark


class HostEnds(NamedTuple):
    """The host's ends of a worker's channels."""

    data: socket.socket
    control: socket.socket
    output: int


class WorkerEnds(NamedTuple):
    """The worker's ends, to be passed to its process and closed here.

    ``inherited``: what the worker gets of this process's own descriptors, each under the number it
    has there. If these are its stdout and stderr, only the stacks of a crash go to ``output``.
    """

    data: socket.socket
    control: socket.socket
    mark: int
    output: int
    inherited: Mapping[int, int]

    @property
    def fds(self) -> tuple[int, ...]:
        """Their descriptors in the order the worker expects."""
        own = self.data.fileno(), self.control.fileno(), self.mark
        return *own, *self.inherited.values(), self.output

    def close(self) -> None:
        """Close them: a copy in the host would hide the worker's end-of-file."""
        self.data.close()
        self.control.close()
        os.close(self.mark)
        os.close(self.output)


def open_channels(
    inherited: Mapping[int, int] = MappingProxyType({}),
) -> tuple[HostEnds, WorkerEnds]:
    """The channels of a worker to be; ``inherited`` as in WorkerEnds.

    Raises:
        OSError: this process may have no more descriptors; it has none more than before.
    """
    with ExitStack() as opened:
        data, worker_data = map(opened.enter_context, socket.socketpair())
        control, worker_control = map(opened.enter_context, socket.socketpair())
        output, worker_output = ends = os.pipe()
        for end in ends:
            opened.callback(os.close, end)
        mark = create_mark()
        opened.pop_all()  # all is there, and from now on the caller's
    worker_ends = WorkerEnds(worker_data, worker_control, mark, worker_output, inherited)
    return HostEnds(data, control, output), worker_ends
