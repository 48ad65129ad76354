"""``python -m snakepit`` is the command ``snakepit``."""

from __future__ import annotations

from snakepit.cli import main

if __name__ == "__main__":
    main()
