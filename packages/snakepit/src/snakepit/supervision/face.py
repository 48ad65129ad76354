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
