"""A program that nothing imports before it is asked for."""

from __future__ import annotations

import os
from typing import Final

IMPORTED_BY: Final = os.getpid()


def importer() -> int:
    """The process that has imported this."""
    return IMPORTED_BY
