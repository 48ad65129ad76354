"""Reading any exception as bounded plain data, without ever raising.

An exception raised by user code is untrusted here: its ``__str__`` may raise, its message may be
huge, its cause chain may be a cycle, and it may hold text that is no valid UTF-8. These helpers
turn what they meet into text and plain containers of limited size, because a failing error path
would replace the user's error with ours.
"""

from __future__ import annotations

import builtins
import traceback
from typing import Any, cast

#: Longest message sent to another process, in characters. Messages are read by people.
MESSAGE_LIMIT = 16_384
#: Longest formatted traceback sent to another process, in characters.
TRACEBACK_LIMIT = 8_192
#: Frames of a traceback that are formatted, counted from the innermost.
FRAME_LIMIT = 50
#: Deepest container inside ``details``; what lies deeper is sent as its ``repr``.
DETAILS_DEPTH = 8

# Their constructors or layout need more than a message, or raising them means something to the
# interpreter (StopIteration inside a generator or a future), or would be untrue here (it is the
# other process that is out of memory); their usable parent stands in.
_UNSUITABLE: tuple[type[BaseException], ...] = (
    UnicodeDecodeError,
    UnicodeEncodeError,
    UnicodeTranslateError,
    BaseExceptionGroup,
    MemoryError,
    StopIteration,
    StopAsyncIteration,
)


def clip(text: str, limit: int) -> str:
    """Return ``text`` as valid UTF-8 of at most about ``limit`` characters, cut in the middle.

    The middle goes because a traceback tells most at its two ends.
    """
    if len(text) > limit:
        half = limit // 2
        left_out = len(text) - 2 * half
        text = f"{text[:half]}\n... ({left_out} characters left out) ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def message_of(exc: BaseException) -> str:
    """Return ``str(exc)``, or a note about why there is none."""
    try:
        return clip(str(exc), MESSAGE_LIMIT)
    except Exception as broken:  # user code: a broken __str__ must not hide the error itself
        return f"<str() of the exception failed with {type(broken).__name__}>"


def type_name_of(exc: BaseException) -> str:
    """Return the qualified type name; builtins without their module, as Python prints them."""
    cls = type(exc)
    module, name = str(cls.__module__), str(cls.__qualname__)
    return clip(name if module == "builtins" else f"{module}.{name}", MESSAGE_LIMIT)


def traceback_of(exc: BaseException) -> str | None:
    """Return the formatted traceback of ``exc`` alone (causes are sent apart), or None."""
    if exc.__traceback__ is None:
        return None
    try:
        parts = traceback.TracebackException(
            type(exc), exc, exc.__traceback__, limit=-FRAME_LIMIT, compact=True
        ).format(chain=False)
        return clip("".join(parts), TRACEBACK_LIMIT)
    except Exception as broken:  # formatting calls user code too (__str__, __notes__)
        return f"<formatting the traceback failed with {type(broken).__name__}>"


def cause_of(exc: BaseException) -> BaseException | None:
    """Return the exception that Python would print above ``exc``."""
    if exc.__cause__ is not None:
        return exc.__cause__
    return None if exc.__suppress_context__ else exc.__context__


def builtin_for(cls: type[BaseException]) -> type[Exception] | None:
    """Return the nearest builtin ``Exception`` type that can stand for ``cls``, or None."""
    for base in cls.__mro__:
        if base is Exception or issubclass(base, _UNSUITABLE) or not issubclass(base, Exception):
            continue
        if getattr(builtins, base.__name__, None) is base:
            return cast("type[Exception]", base)
    return None


def builtin_named(name: str) -> type[Exception] | None:
    """Return the builtin that stands for the exception type called ``name``, or None.

    A name from the wire selects among the builtins and nothing else: no import happens.
    """
    found = getattr(builtins, name.removeprefix("builtins."), None)
    if isinstance(found, type) and issubclass(found, Exception):
        return builtin_for(found)
    return None


def plain(value: Any, depth: int = DETAILS_DEPTH) -> Any:
    """Return ``value`` as plain data: None, bool, int, float, str, bytes, list and dict.

    Enum members and other subclasses become their base value; anything else its ``repr``.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clip(str.__str__(value), MESSAGE_LIMIT)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bytes):
        return bytes(value)
    if depth > 0 and isinstance(value, dict):
        return {_key(key): plain(item, depth - 1) for key, item in value.items()}
    if depth > 0 and isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth - 1) for item in value]
    return _repr(value)


def _key(key: Any) -> str:
    return clip(str.__str__(key) if isinstance(key, str) else _repr(key), MESSAGE_LIMIT)


def _repr(value: Any) -> str:
    try:
        return clip(repr(value), MESSAGE_LIMIT)
    except Exception as broken:  # user code, as in message_of
        return f"<repr() of {type(value).__name__} failed with {type(broken).__name__}>"
