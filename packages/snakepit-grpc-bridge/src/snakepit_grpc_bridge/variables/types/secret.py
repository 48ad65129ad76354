"""Text that nobody sees by accident."""

from __future__ import annotations

import hmac
from typing import Any, Final, Never, SupportsIndex

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.variables.types import scalars
from snakepit_grpc_bridge.variables.types.unfit import Unfit

__all__ = ["Secret", "read_secret"]

_SHOWN: Final = "Secret('***')"


class Secret:
    """Holds a text, such as a key, that only :meth:`reveal` gives away.

    ``repr``, ``str``, formatting and logging show ``***``, not even the length. It can't be
    pickled, and does not travel to other processes as a part of other values. Comparing two takes
    the same time wherever they differ. It never changes, so copies are the secret itself.

    Raises:
        ValidationFailed: when made: it was given something else than text that can be encoded.

    Example:
        >>> key = Secret("a-key")
        >>> print(key, f"{key:>20}", key == Secret("a-key"))
        Secret('***') Secret('***') True
        >>> key.reveal()
        'a-key'
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        try:
            self._text = scalars.read_string(text)
        except Unfit as unfit:
            why = f" ({unfit.text})" if unfit.text else ""
            raise ValidationFailed(
                f"a secret is made of text, not of a value of type {type(text).__name__}{why}"
            ) from None

    def reveal(self) -> str:
        """Return the text itself. Don't log it, and don't put it into other values."""
        return self._text

    def __repr__(self) -> str:
        return _SHOWN

    def __format__(self, spec: str) -> str:
        return _SHOWN

    def __eq__(self, other: object) -> bool:
        if type(other) is not Secret:
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    #: A hash would tell equal ones by a table, in a time that depends on the text.
    __hash__ = None  # type: ignore[assignment]

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> Never:
        raise TypeError("a secret is not pickled; seal it, or pass on what reveal() returns")


def read_secret(value: Any) -> Secret:
    """Return a secret; text becomes one."""
    return value if type(value) is Secret else Secret(scalars.read_string(value))
