"""A class that can be constructed once."""

from __future__ import annotations

import os
from pathlib import Path

import snakepit


class Once:
    """Its second construction fails."""

    def __init__(self, flag: str) -> None:
        Path(flag).touch(exist_ok=False)

    @snakepit.command
    def die(self) -> None:
        os._exit(1)
