"""How readers say that a value is not for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snakepit.wire.locate import label_of, shown

__all__ = ["Unfit"]


class Unfit(TypeError):
    """A value, or something inside it, is none that a type takes. Never leaves this package.

    Attributes:
        says: what is wrong; goes on from "it", as in "has no zone". Empty if there is no more to
            say than what the type takes.
        at: the very object that is wrong.
        private: whether it must not be shown.
    """

    def __init__(self, says: str = "", *, at: object = None, private: bool = False) -> None:
        super().__init__(says)
        self.says = says
        self.at = at
        self.private = private
        self._path = ""

    @property
    def text(self) -> str:
        """What is wrong and where, as in ``"value.items[3] has no zone"``."""
        place = shown(f"value{self._path}") if self._path else "it"
        return f"{place} {self.says}" if self.says else ""

    def inside(self, container: object, items: Sequence[Any], keys: Sequence[str] | None) -> None:
        """Add the place among the ``items`` of a container, which has them under ``keys``."""
        # By identity: asking for equality would run code of the value's.
        index = next(i for i, item in enumerate(items) if item is self.at)
        label = f"[{index}]" if keys is None else label_of(keys[index], plain=True)
        self._path = label + self._path
        self.at = container
