"""A backend of joblib, and so of scikit-learn, whose calls run in a ``ProcessPoolExecutor``.

It needs joblib 1.4 or later, which this package does not install.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from joblib import register_parallel_backend
from joblib.parallel import ParallelBackendBase

from snakepit.executor.executor import ProcessPoolExecutor

__all__ = ["NAME", "SnakepitBackend", "register"]

NAME: Final = "snakepit"


def register() -> None:
    """Make the backend known to joblib as "snakepit". Runs in the host.

    Example::

        register()
        with joblib.parallel_config("snakepit", n_jobs=4):
            print(joblib.Parallel()(joblib.delayed(math.sqrt)(n) for n in range(10)))
    """
    register_parallel_backend(NAME, SnakepitBackend)


class SnakepitBackend(ParallelBackendBase):  # type: ignore[misc]  # joblib is not typed
    """What joblib asks for its calls. An executor lasts for one ``Parallel``; as a context manager
    a ``Parallel`` keeps it for all its calls.

    A worker's death fails its own batch of calls with a WorkerLost; joblib gives up the rest then.
    """

    supports_retrieve_callback = True
    supports_timeout = True
    uses_threads = False
    supports_sharedmem = False

    _executor: ProcessPoolExecutor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many workers ``n_jobs`` means: -1 and None are all processors, -2 all but one."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 has no meaning")
        processors = os.cpu_count() or 1
        if n_jobs is None:
            return processors
        return n_jobs if n_jobs > 0 else max(processors + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Make the executor."""
        self.parallel = parallel
        count = self.effective_n_jobs(n_jobs)
        self._executor = ProcessPoolExecutor(max_workers=count)
        return count

    def submit(self, func: Callable[[], Any], callback: Callable[..., Any]) -> Future[Any]:
        """Have a worker run a batch of calls."""
        assert self._executor is not None, "joblib configures a backend first"
        future = self._executor.submit(func)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The results of a batch that has ended; raises its error."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop all calls: one has failed."""
        self._close(kill=True)
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def terminate(self) -> None:
        """End the workers."""
        self._close(kill=False)

    def _close(self, *, kill: bool) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            if kill:
                executor.kill_workers()
            executor.shutdown()
