"""Why a value can't be encoded, and where it is: slow, and used only when encoding has failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from snakepit.errors import EncodeError, PayloadTooLarge, SnakepitError
from snakepit.errors import error_text as text
from snakepit.wire import arrays, placing, values
from snakepit.wire._refusal import Refusal
from snakepit.wire.locate import label_of, shown
from snakepit.wire.segments import SEGMENT_THRESHOLD

#: Levels of msgpack arrays and maps in one value; a mark adds one. msgpack's C code has this very
#: limit in both directions, so that it costs nothing; a test compares the two.
MAX_DEPTH = 1024
# Looking for the largest part of a value ends here.
_LOOKED_AT = 10_000


def cause_of(failure: Exception) -> BaseException | None:
    """The error to name as the cause of the one that tells of ``failure``."""
    return failure.__cause__ if isinstance(failure, Refusal) else failure


def explain(failure: Exception, roots: Iterable[tuple[str, Any]]) -> SnakepitError:
    """The error for ``failure``, with the path of the value that caused it."""
    found = _find_bad(roots)
    if isinstance(failure, PayloadTooLarge):
        if found is not None and failure.size is not None and failure.limit is not None:
            return PayloadTooLarge.of(failure.size, failure.limit, found[0])
        return failure
    path, reason = found or ("the value", f"can't be encoded: {_reason(failure)}")
    message = f"{shown(path)} {text.clip(reason, text.MESSAGE_LIMIT)}"
    return EncodeError(message, details={"path": path})


def too_large(size: int, limit: int, roots: Iterable[tuple[str, Any]]) -> PayloadTooLarge:
    """The error for a value of ``size`` bytes; it names the largest part."""
    most, path = -1, None
    levels = [("", iter(roots))]
    for _ in range(_LOOKED_AT):
        if not levels:
            break
        above, parts = levels[-1]
        label, value = next(parts, (None, None))
        if label is None:
            levels.pop()
            continue
        children = _children(value)
        if children is not None:
            levels.append((above + label, children))
        elif _bytes_of(value) > most:
            most, path = _bytes_of(value), above + label
    return PayloadTooLarge.of(size, limit, path and shown(path))


def _bytes_of(value: Any) -> int:
    if arrays.is_array(value) or isinstance(value, memoryview):
        return int(value.nbytes)
    return len(value) if isinstance(value, (str, bytes, bytearray)) else 0


def _encodable(value: Any) -> None:
    """Raise what encoding a single value raises."""
    if arrays.is_array(value) and not arrays.is_scalar(value):
        arrays.check_array(value)
    elif isinstance(value, memoryview) and not value.c_contiguous:
        raise BufferError
    elif _bytes_of(value) < SEGMENT_THRESHOLD or isinstance(value, str):
        placing.pack(value, placing.inline)


def _find_bad(roots: Iterable[tuple[str, Any]]) -> tuple[str, str] | None:
    """Walk depth first, without recursion, to the first value that fails by itself."""
    levels: list[Iterator[tuple[str, Any]]] = [iter(roots)]
    path: list[str] = []
    above: list[int] = []
    depth = 0
    weights: list[int] = []
    while levels:
        try:
            label, value = next(levels[-1], (None, None))
        except Exception as failure:  # a container with an iterator of its own
            return "".join(path), _reason(failure)
        if label is None:
            levels.pop()
            if path:
                path.pop()
                above.pop()
                depth -= weights.pop()
            continue
        here = "".join([*path, label])
        try:
            children = _children(value)
            if children is None:
                _encodable(value)
                continue
        except Exception as failure:
            return here, _reason(failure)
        weight = 2 if isinstance(value, (tuple, set, frozenset)) else 1
        depth += weight
        if id(value) in above:
            return here, "contains itself; send a structure without cycles"
        if depth > MAX_DEPTH:
            return here, f"is nested more than {MAX_DEPTH} levels deep; send a flatter structure"
        path.append(label)
        above.append(id(value))
        weights.append(weight)
        levels.append(children)
    return None


def _children(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Return the labelled values inside a container, or None for a single value."""
    if isinstance(value, dict):
        return _entries(value)
    if isinstance(value, (list, tuple)):
        return ((f"[{index}]", item) for index, item in enumerate(value))
    if isinstance(value, (set, frozenset)):
        return ((".<element>", item) for item in value)
    if isinstance(value, (str, bytes, int, float)):
        return None
    fields = values.fields_of(value)
    return _entries(fields) if isinstance(fields, Mapping) else None


def _entries(mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for key, item in mapping.items():
        plain = type(key) in values.NATIVE
        key_shown = text.clip(repr(key), 60) if plain else type(key).__name__
        yield f".<key {key_shown}>", key
        yield label_of(key, plain), item


def _reason(failure: Exception) -> str:
    if isinstance(failure, UnicodeEncodeError):
        return f"is text with a lone surrogate at position {failure.start}; send bytes instead"
    if isinstance(failure, BufferError):
        return "is a memoryview of memory that is not contiguous; send bytes(view)"
    if isinstance(failure, Refusal):
        return text.message_of(failure)
    return f"can't be encoded: {type(failure).__name__}: {text.message_of(failure)}"
