"""A place where processes meet: none passes before all are there."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from types import TracebackType

_PATIENCE = 300.0


class Gate:
    """Holds what connects to ``path`` until ``count`` have connected. A thread of its own serves
    it, because the peers' interfaces block."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._folder = tempfile.mkdtemp(prefix="gate-")
        self.path = f"{self._folder}/gate"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(count)
        self._listener.settimeout(_PATIENCE)
        self._thread = threading.Thread(target=self._serve, name="gate", daemon=True)

    def __enter__(self) -> Gate:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Wakes the thread, should it still wait.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self._folder)

    def _serve(self) -> None:
        arrived: list[socket.socket] = []
        try:
            while len(arrived) < self._count:
                arrived.append(self._listener.accept()[0])
        except OSError:
            pass  # closed, or not all came; whoever did is let go, and the measure fails by itself
        finally:
            for connection in arrived:
                connection.close()
