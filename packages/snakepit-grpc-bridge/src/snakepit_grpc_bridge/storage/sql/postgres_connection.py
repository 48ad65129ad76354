"""A connection to PostgreSQL that waits for no answer for ever."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen

__all__ = ["Connection"]

_T = TypeVar("_T")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """Closed when its server says nothing for a while although it was asked something.

    The kernel notices a server that has ended or was cut off. It does not notice one that is
    frozen, whose own kernel goes on confirming whatever it is sent.

    Attributes:
        patience: seconds until then.
    """

    patience: float = math.inf

    def wait(self, gen: PQGen[_T], *args: Any, **options: Any) -> _T:
        """What the driver waits with, for any answer.

        Raises:
            psycopg.OperationalError: there was none in time; the connection is closed.
        """
        return super().wait(self._patiently(gen), *args, **options)

    def _patiently(self, gen: PQGen[_T]) -> Generator[Any, Any, _T]:
        """Pass on what a generator of the driver yields: what of its socket it waits for."""
        heard = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                now = time.monotonic()
                if ready:
                    heard = now
                elif now - heard > self.patience:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(
                        f"the server said nothing for {self.patience:g} s"
                    )
                wanted = gen.send(ready)
        except StopIteration as end:
            result: _T = end.value
            return result

    def clear_up(self, statement: bytes) -> None:
        """Run a statement past the driver, which would have all others prepared again after it.

        Raises nothing: whether it has helped is seen by the state of the connection.
        """
        with contextlib.suppress(psycopg.Error):
            self.pgconn.send_query(statement)
            self.wait(generators.execute(self.pgconn))
