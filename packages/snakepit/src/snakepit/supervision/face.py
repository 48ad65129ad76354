"""What a pool offers to those who look after it: its workers one by one, and its health."""

from __future__ import annotations

from snakepit.supervision.workforce import Workforce


class SupervisedPool:
    """The part of a pool's face that is about its workers rather than its calls."""

    _workforce: Workforce

    def recycle(self, worker_id: str) -> bool:
        """Have a healthy worker replaced: its successor is started, then it ends after its calls.

        Returns at once. False if there is no such worker (any more), it leaves already, or its
        successor could not be started a moment ago.

        Example::

            pool.recycle(pool.workers()[0].worker_id)
        """
        return self._workforce.recycle(worker_id, "it was asked for")

    async def dump_stacks(self, worker_id: str) -> str:
        """The Python stacks of all threads of a worker, as text, whatever it does: also while it
        runs a command, or C code that holds the interpreter's lock. The worker goes on undisturbed.

        On Linux. Takes a few milliseconds.

        Raises:
            ConfigurationError: there is no such worker, or its adapter has no processes of Python.
            WorkerHung: it did not react within 2 s; it may be stopped.

        Example::

            for info in pool.workers():
                print(info.worker_id, await pool.dump_stacks(info.worker_id))
        """
        return await self._workforce.dump_stacks(worker_id)
