"""Grammars in llama.cpp's notation (GBNF): what a model may write. Pure."""

from __future__ import annotations

from typing import Any

__all__ = ["INTEGER", "LINE", "NUMBER", "bounded", "gbnf"]

#: Enough for what a small model can get right; without bounds it repeats itself to no end.
_MAX_ITEMS = 12
_MAX_LENGTH = 120

#: Numbers with a bound on their length: a small model does not stop by itself.
INTEGER = 'root ::= " " "-"? [0-9]{1,18} "\\n"'
NUMBER = 'root ::= " " "-"? [0-9]{1,15} ("." [0-9]{1,9})? "\\n"'
#: One line that is not empty.
LINE = 'root ::= " " [^ \\n\\t\\r] [^\\n]* "\\n"'


def gbnf(text: str) -> str:
    """Quote ``text`` for a grammar.

    Example:
        >>> gbnf('say "hi"')
        '"say \\\\"hi\\\\""'
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def bounded(schema: Any) -> Any:
    """Return a JSON schema whose arrays and strings end, where it does not bound them itself.

    Example:
        >>> bounded({"type": "string"})
        {'maxLength': 120, 'type': 'string'}
    """
    if isinstance(schema, list):
        return [bounded(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    limits: dict[str, Any] = {}
    if schema.get("type") == "array":
        limits = {"maxItems": max(_MAX_ITEMS, schema.get("minItems", 0))}
    elif schema.get("type") == "string" and not schema.keys() & {"enum", "const", "format"}:
        limits = {"maxLength": max(_MAX_LENGTH, schema.get("minLength", 0))}
    return {**limits, **{key: bounded(value) for key, value in schema.items()}}
