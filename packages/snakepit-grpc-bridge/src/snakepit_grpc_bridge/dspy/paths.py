"""Which dotted paths may be called in workers, and what they name.

The check of the text runs on the host, at the call site; what it really leads to is known in the
worker alone, and checked there: ``dspy.clients.os.system`` begins with ``dspy``, too.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from snakepit_grpc_bridge.errors import NotAllowed, ValidationFailed, did_you_mean, shown

__all__ = ["STORED", "check_args", "check_method", "check_path", "check_target", "resolve"]

#: What an address of a stored instance begins with.
STORED = "stored."
_SPECIAL_METHODS = ("__init__", "__call__")


def check_target(path: object, allowed: Sequence[str]) -> str:
    """As ``check_path``; addresses of stored instances are fine too."""
    if isinstance(path, str) and path.startswith(STORED):
        return path
    return check_path(path, allowed)


def check_path(path: object, allowed: Sequence[str]) -> str:
    """Return ``path`` if it is a dotted path inside one of the ``allowed`` prefixes. Pure.

    Raises:
        ValidationFailed: it is no dotted path of public names.
        NotAllowed: it is outside.
    """
    parts = path.split(".") if isinstance(path, str) else []
    if not parts or not all(part.isidentifier() and part[0] != "_" for part in parts):
        raise ValidationFailed(
            f"{path!r:.200} is no class path; write a dotted path of public names, as in "
            "'dspy.Predict', or 'stored.<id>' for an instance of the session"
        )
    if not _is_inside(str(path), allowed):
        raise NotAllowed(
            f"{path!r} is outside of what workers may call ({', '.join(allowed) or 'nothing'}); "
            f"add {parts[0]!r} to the setting import_allow if you trust it",
            details={"path": path, "import_allow": list(allowed)},
        )
    return str(path)


def check_method(method: object) -> str:
    """Return ``method`` if it is a public name, ``__init__`` or ``__call__``. Pure.

    Raises:
        ValidationFailed: it is something else.
    """
    valid = isinstance(method, str) and method.isidentifier() and method[0] != "_"
    if not valid and method not in _SPECIAL_METHODS:
        raise ValidationFailed(
            f"{method!r:.200} is no method that can be called; use a public name, '__init__' to "
            "create an instance, or '__call__'"
        )
    return str(method)


def check_args(args: object) -> list[Any]:
    """Return the positional arguments of a call as a list. Pure.

    Raises:
        ValidationFailed: it is a single value, or names its arguments.
    """
    # Text is a sequence, too: of its characters.
    if isinstance(args, str | bytes | Mapping) or not isinstance(args, Iterable):
        raise ValidationFailed(
            f"args is {shown(args)}; pass a list of positional arguments, such as args=[...], or "
            "arguments by name, such as kwargs={...}"
        )
    return list(args)


def resolve(path: str, allowed: Sequence[str]) -> Any:
    """Import what a checked path names and return it. Worker side.

    Raises:
        ValidationFailed: there is nothing of that name.
        NotAllowed: it was only imported there from a place that is not allowed.
        ImportError: the module itself fails to import.
    """
    found, rest = _import_longest(path.split("."))
    _check_origin(path, found, allowed)
    for name in rest:
        if not hasattr(found, name):
            owner = getattr(found, "__name__", path)
            raise ValidationFailed(
                f"{owner} has no {name!r}{did_you_mean(name, _public(found))}",
                details={"path": path, "missing": name},
            )
        found = getattr(found, name)
        _check_origin(path, found, allowed)
    return found


def _import_longest(parts: list[str]) -> tuple[ModuleType, list[str]]:
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        try:
            return importlib.import_module(name), parts[length:]
        except ModuleNotFoundError as error:
            # Only if the module itself is missing; one that imports something missing is broken.
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise
    raise ValidationFailed(
        f"there is no module {parts[0]!r} in the workers; install it in their environment",
        details={"path": ".".join(parts)},
    )


def _check_origin(path: str, found: Any, allowed: Sequence[str]) -> None:
    if isinstance(found, ModuleType):
        origin = found.__name__
    elif inspect.isroutine(found) or isinstance(found, type):
        origin = getattr(inspect.unwrap(found), "__module__", None) or ""
    else:
        # An object of the module, such as an instance; judged by its class.
        origin = type(found).__module__
    if not _is_inside(origin, allowed):
        raise NotAllowed(
            f"{path!r} leads to {origin or 'a builtin'}, outside of what workers may call "
            f"({', '.join(allowed)})",
            details={"path": path, "origin": origin, "import_allow": list(allowed)},
        )


def _is_inside(path: str, allowed: Iterable[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in allowed)


def _public(found: Any) -> list[str]:
    return [name for name in dir(found) if not name.startswith("_")]
