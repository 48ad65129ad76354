"""Loggers whose handlers can't harm who logs.

A handler is the program's own code, and it is called where workers' deaths are handled and their
output is read. What it raises is reported as the handlers of the standard library do it, and the
pool goes on.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any


class SteadyLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs as any logger, and never raises."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """As ``logging.Logger.log``."""
        # The place that is named in the record is the caller's, not this one.
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            if logging.raiseExceptions:
                traceback.print_exc()


def steady_logger(name: str) -> SteadyLogger:
    """The logger of that name."""
    return SteadyLogger(logging.getLogger(name), {})


def be_quiet_by_default() -> None:
    """Keep log records off a program's stderr unless it asks for them; errors are raised anyway."""
    library = logging.getLogger("snakepit")
    if not library.handlers:
        library.addHandler(logging.NullHandler())
