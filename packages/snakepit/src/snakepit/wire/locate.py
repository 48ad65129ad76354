"""Where in an encoded value decoding fails: slow, and used only when it has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgpack

from snakepit.errors import error_text as text

# Each level is decoded again, so what a hostile peer can cost is bounded.
_MOST_BYTES = 1 << 20
_MOST_LEVELS = 32
_SHOWN_PATH = 120

Decode = Callable[[bytes], Any]


class _Part(NamedTuple):
    """A piece of an encoded container."""

    label: str
    data: bytes


def path_of_failure(data: bytes, names: Sequence[str], decode: Decode) -> str | None:
    """The path of the innermost value in ``data`` that ``decode`` refuses, or None.

    ``names`` are those of the elements of an array at the top; without any, the top is ``value``.
    None if the bytes are not even msgpack, or too many to look.
    """
    if len(data) > _MOST_BYTES:
        return None
    path = "" if names else "value"
    for level in range(_MOST_LEVELS):
        try:
            parts = list(_parts(data, names if level == 0 else ()))
        except Exception:
            break  # cut or garbled inside: this container is as far as it goes
        bad = next((part for part in parts if not _decodes(part.data, decode)), None)
        if bad is None:
            break
        path, data = path + bad.label, bad.data
    return path or None


def shown(path: str) -> str:
    """A path as error messages show it."""
    half = _SHOWN_PATH // 2
    return path if len(path) <= _SHOWN_PATH else f"{path[:half]}...{path[-half:]}"


def label_of(key: Any, plain: bool) -> str:
    """How the value under ``key`` is named in a path; ``plain``: its repr is harmless."""
    if isinstance(key, str) and key.isidentifier():
        return f".{key}"
    return f"[{text.clip(repr(key), 60) if plain else type(key).__name__}]"


def _decodes(data: bytes, decode: Decode) -> bool:
    try:
        decode(data)
    except Exception:
        return False
    return True


def _parts(data: bytes, names: Sequence[str]) -> Iterator[_Part]:
    """The values directly inside a container; nothing for a single value."""
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(data)
    kind = data[:1]
    if b"\x90" <= kind <= b"\x9f" or kind in (b"\xdc", b"\xdd"):
        for index in range(unpacker.read_array_header()):
            label = names[index] if index < len(names) else f"[{index}]"
            yield _Part(label, _next(unpacker, data))
    elif b"\x80" <= kind <= b"\x8f" or kind in (b"\xde", b"\xdf"):
        count = unpacker.read_map_header()
        for _ in range(count):
            key = _next(unpacker, data)
            mark = count == 1 and _is_mark(key)
            label = "" if mark else _key_label(key)
            if not mark:
                bare = label.strip("[].")
                yield _Part(f".<key {bare}>", key)
            yield _Part(label, _next(unpacker, data))


def _next(unpacker: Any, data: bytes) -> bytes:
    start = unpacker.tell()
    unpacker.skip()
    return data[start : unpacker.tell()]


def _is_mark(key: bytes) -> bool:
    return len(key) == 3 and key[:2] == b"\xc7\x00"


def _key_label(key: bytes) -> str:
    try:
        value = msgpack.unpackb(key)
    except Exception:
        return "[?]"
    return label_of(value, plain=isinstance(value, (str, bytes, int, float, type(None))))
