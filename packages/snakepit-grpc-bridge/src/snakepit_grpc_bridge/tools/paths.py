"""Tools by path: the function that a text names, found in the process that has it. Worker side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from snakepit_grpc_bridge.dspy.paths import check_path, resolve
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.schema.travel import type_name

__all__ = ["find_function"]


def find_function(path: str, allowed: Sequence[str]) -> Callable[..., Any]:
    """Import and return what ``"package.module:function"`` or ``"package.module.function"`` names.

    ``allowed``: the packages that may be imported, as in the setting ``import_allow``.

    Raises:
        ValidationFailed: there is no such function.
        NotAllowed: it is outside of what is allowed.
        ImportError: the module itself fails to import.

    Example:
        >>> find_function("statistics:mean", ["statistics"])([1, 3])
        2
    """
    dotted = path.replace(":", ".", 1) if isinstance(path, str) else path
    found = resolve(check_path(dotted, allowed), allowed)
    if not callable(found):
        raise ValidationFailed(
            f"{path!r} is no function but {type_name(found)}; name a function, a class or an "
            "object with __call__",
            details={"path": path},
        )
    function: Callable[..., Any] = found
    return function
