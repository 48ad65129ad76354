"""Reading the small files in which a kernel tells about its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Below which the kernel's files are; tests have a folder of their own.
ROOT: Final = Path("/")
# More than any of these files has; what is longer is not what it should be.
_MOST_BYTES: Final = 1 << 20


def read_text(path: Path) -> str | None:
    """A file's text, None if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode(errors="replace")
    except (OSError, ValueError):  # the latter: no file can have such a name
        return None


def whole(text: str | None) -> int | None:
    """The number that a text consists of, None if it is none or one below zero."""
    stripped = "" if text is None else text.strip()
    # isdecimal() alone takes digits of all scripts, and int() has a limit of its own to their
    # number.
    return (
        int(stripped)
        if stripped.isascii() and stripped.isdecimal() and len(stripped) < 40
        else None
    )
