"""Records of logging that name the call they were made in."""

from __future__ import annotations

import logging
from typing import Final

from snakepit.calls.nesting import current_chain, served_command
from snakepit.worker.context import find_call

_NO_CALL: Final = "-"


class CorrelationFilter(logging.Filter):
    """Gives every record ``correlation_id``: that of the call which the code serves that makes the
    record, in a command as well as in a function of the host; ``-`` where it serves none.

    Add it to a handler, in the host and in the workers, and name it in the handler's format.

    Example::

        handler = logging.StreamHandler()
        handler.addFilter(CorrelationFilter())
        handler.setFormatter(logging.Formatter("%(correlation_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add to the record; let every one pass."""
        record.correlation_id = _current_correlation_id()
        return True


def _current_correlation_id() -> str:
    call = find_call()
    if call is not None:
        return call.correlation_id
    served = served_command(current_chain())
    return _NO_CALL if served is None else served.correlation_id
