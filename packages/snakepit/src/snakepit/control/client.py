"""A command's end of a control socket. Blocking; runs in a process that is not the pool's."""

from __future__ import annotations

import socket
from pathlib import Path
from types import TracebackType
from typing import Any

from snakepit.control.messages import MAX_ANSWER_BYTES, SNAPSHOT, STACKS, read_answer, request_frame
from snakepit.wire.frames import FrameDecoder


class ControlClient:
    """A connection to a pool's control socket.

    Args:
        path: of the socket.
        patience: seconds to wait for an answer.

    Raises (also from its methods):
        TimeoutError: no answer came. The pool's event loop may be blocked. The connection is of no
            use any more.
        OSError: the pool is gone, or serves too many clients.

    Example::

        with ControlClient(path) as client:
            print(client.snapshot()["stats"])
    """

    def __init__(self, path: Path, patience: float = 2.0) -> None:
        self._number = 0
        self._decoder = FrameDecoder(MAX_ANSWER_BYTES)
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(patience)
            self._socket.connect(str(path))
        except BaseException:
            self._socket.close()
            raise

    def snapshot(self) -> dict[str, Any]:
        """The pool at this moment, as :func:`snakepit.control.snapshot.describe_pool` tells it."""
        answer: dict[str, Any] = self._request(SNAPSHOT)
        return answer

    def stacks(self, worker_id: str) -> str:
        """The stacks of a worker.

        Raises:
            SnakepitError: as of ``Pool.dump_stacks``.
        """
        return str(self._request(STACKS, worker_id))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _request(self, name: str, argument: str | None = None) -> Any:
        self._number += 1
        try:
            self._socket.sendall(request_frame(self._number, name, argument))
        except BrokenPipeError as error:  # which would be taken for that of standard output
            raise ConnectionResetError("the pool has closed the connection") from error
        while data := self._socket.recv(1 << 16):
            for frame in self._decoder.feed(data):
                return read_answer(frame)
        raise ConnectionResetError("the pool has closed the connection")
