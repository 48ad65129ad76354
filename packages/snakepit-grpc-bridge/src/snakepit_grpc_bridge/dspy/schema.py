"""What a module offers: its classes and functions, read by introspection. Worker side."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from snakepit_grpc_bridge.dspy.runtime import load_dspy

__all__ = ["describe"]

_LONGEST_DEFAULT = 200


def describe(path: str, found: Any) -> dict[str, Any]:
    """Return what ``found``, the object at ``path``, offers, as plain data.

    The keys are ``path``, ``kind`` ("module", "class" or "function"), ``doc``, and for a module
    ``version``, ``classes`` and ``functions``, for a class those of ``_describe_class``.
    """
    if isinstance(found, ModuleType):
        return _describe_module(path, found)
    if isinstance(found, type):
        return {"path": path, "kind": "class", **_describe_class(found)}
    return {"path": path, "kind": "function", **_describe_callable(found)}


def _describe_module(path: str, module: ModuleType) -> dict[str, Any]:
    root = path.partition(".")[0]
    classes: dict[str, Any] = {}
    functions: dict[str, Any] = {}
    for name in _public_names(module):
        member = getattr(module, name, None)
        if not str(getattr(member, "__module__", "")).startswith(root):
            continue  # a helper imported from elsewhere
        if isinstance(member, type):
            classes[name] = {"path": f"{path}.{name}", **_describe_class(member)}
        elif inspect.isroutine(member):
            functions[name] = {"path": f"{path}.{name}", **_describe_callable(member)}
    version = getattr(module, "__version__", None)
    return {
        "path": path,
        "kind": "module",
        "doc": _doc(module),
        "version": version if isinstance(version, str) else None,
        "classes": classes,
        "functions": functions,
    }


def _public_names(module: ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None) or [
        name for name in vars(module) if not name.startswith("_")
    ]
    return sorted(set(listed))


def _describe_class(cls: type) -> dict[str, Any]:
    """The keys are ``category``, ``doc``, ``bases``, ``parameters`` and ``methods``."""
    root = cls.__module__.partition(".")[0]
    methods = {}
    for name in dir(cls):
        if name.startswith("_") and name != "__call__":
            continue
        member = inspect.getattr_static(cls, name, None)
        function = inspect.unwrap(getattr(member, "__func__", member))
        # Methods of the library itself, not of pydantic or object.
        if inspect.isfunction(function) and function.__module__.startswith(root):
            methods[name] = {"binding": _binding(member), **_describe_callable(function)}
    return {
        "category": _category(cls),
        "doc": _doc(cls),
        "bases": [f"{base.__module__}.{base.__qualname__}" for base in cls.__bases__],
        # DSPy's metaclass hides those of __init__ behind (*args, **kwargs).
        "parameters": _parameters(cls.__init__),  # type: ignore[misc]
        "methods": methods,
    }


def _category(cls: type) -> str:
    dspy = load_dspy()
    known: Mapping[str, Any] = {
        "module": dspy.Module,
        "signature": dspy.Signature,
        "adapter": dspy.Adapter,
        "language_model": dspy.BaseLM,
        "optimizer": dspy.teleprompt.Teleprompter,
        "type": dspy.Type,
        "error": Exception,
    }
    for category, base in known.items():
        if issubclass(cls, base):
            return category
    return "class"


def _binding(member: object) -> str:
    if isinstance(member, staticmethod):
        return "static"
    return "class" if isinstance(member, classmethod) else "instance"


def _describe_callable(function: Any) -> dict[str, Any]:
    called = inspect.unwrap(function)
    return {
        "doc": _doc(function),
        "is_async": inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called),
        "parameters": _parameters(function),
    }


def _parameters(called: Any) -> list[dict[str, Any]] | None:
    """The parameters without ``self`` and ``cls``; None if they are not known."""
    try:
        signature = inspect.signature(called)
    except (TypeError, ValueError):
        return None
    return [
        {
            "name": parameter.name,
            "kind": parameter.kind.name.lower(),
            "annotation": _annotation(parameter.annotation),
            "required": parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD),
            "default": _default(parameter.default),
        }
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]


def _annotation(annotation: Any) -> str | None:
    if annotation is inspect.Parameter.empty:
        return None
    if isinstance(annotation, str):
        return annotation
    plain = isinstance(annotation, type) and not typing.get_args(annotation)
    return annotation.__name__ if plain else str(annotation).replace("typing.", "")


def _default(default: Any) -> str | None:
    """The default as Python writes it; None if there is none."""
    if default is inspect.Parameter.empty:
        return None
    shown = repr(default)
    return shown if len(shown) <= _LONGEST_DEFAULT else shown[:_LONGEST_DEFAULT] + "..."


def _doc(documented: Any) -> str:
    return inspect.getdoc(documented) or ""
