"""What a function takes and gives, as Python knows it. Runs where the function is; pure."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.tools.schema.travel import type_name

__all__ = ["REQUIRED", "Signature", "not_a_tool", "read_signature"]

#: Stands for the default of a parameter that has none.
REQUIRED: Final[Any] = inspect.Parameter.empty

Tool = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """A function as its caller sees it.

    Attributes:
        name: what messages call it.
        doc: its docstring; "" if it has none.
        annotations: those of its parameters, resolved, in order; Any where there is none.
        defaults: those of the parameters that have one.
        others: the annotation of further named values (``**kwargs``); None if it takes none.
        hidden: names that no call can give: what is bound, and ``self``.
        returns: the annotation of the result, or of each item of a stream.
        streams: whether it is a generator, async or not.
        is_async: whether it is a coroutine function or an async generator.
    """

    name: str
    doc: str
    annotations: Mapping[str, Any]
    defaults: Mapping[str, Any]
    others: Any
    hidden: frozenset[str]
    returns: Any
    streams: bool
    is_async: bool


def not_a_tool(name: str, problem: str) -> ValidationFailed:
    """Return the error for a function that can't be a tool; ``problem`` says what to do, too."""
    return ValidationFailed(
        f"{name:.100} can't be a tool: {problem}",
        details={"function": name[:100], "problem": problem},
    )


def read_signature(function: object) -> Signature:
    """Return the signature of anything that can be called with names alone.

    Values that ``functools.partial`` binds are no parameters: whoever calls the tool can neither
    see nor replace them.

    Raises:
        ValidationFailed: it can't be called, or not with names, or an annotation leads nowhere.
    """
    if not callable(function):
        raise ValidationFailed(f"a tool must be a function, not {type_name(function)}")
    target, bound = _without_partial(function)
    name = _name_of(target)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError, NameError) as error:
        problem = "its parameters are not known; wrap it in a function that names them"
        raise not_a_tool(name, problem) from error
    taken = {key: each for key, each in signature.parameters.items() if key not in bound}
    _check_names_suffice(name, list(taken.values()))
    resolve = functools.partial(_resolve, name, _namespace_of(target))
    named = {key: each for key, each in taken.items() if each.kind is not each.VAR_KEYWORD}
    others = [resolve(each) for each in taken.values() if each.kind is each.VAR_KEYWORD]
    called = _called(target)
    streams = inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)
    return Signature(
        name=name,
        doc=_doc_of(target),
        annotations={key: resolve(each) for key, each in named.items()},
        defaults={key: each.default for key, each in named.items() if each.default is not REQUIRED},
        others=others[0] if others else None,
        hidden=_all_names(called) - named.keys(),
        returns=_returned(target, signature, streams),
        streams=streams,
        is_async=inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called),
    )


def _without_partial(function: Tool) -> tuple[Tool, set[str]]:
    bound: set[str] = set()
    while isinstance(function, functools.partial):
        bound |= function.keywords.keys()
        function = function.func
    return function, bound


def _called(target: Tool) -> Any:
    """Return the function that a call runs: an object's is in its class."""
    if inspect.isroutine(target) or inspect.isclass(target):
        return target
    return type(target).__call__


def _name_of(target: Tool) -> str:
    return str(getattr(target, "__qualname__", type(target).__qualname__))


def _all_names(called: Any) -> frozenset[str]:
    """Return the names of all parameters, those that are bound too."""
    function = called.__init__ if inspect.isclass(called) else getattr(called, "__func__", called)
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    return frozenset(
        each.name for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    )


def _doc_of(target: Tool) -> str:
    called = _called(target)
    # An object is described by its own text, or else that of its method, or else its class.
    if called is not target and "__doc__" not in getattr(target, "__dict__", {}):
        own = called.__doc__ if inspect.isfunction(called) else None
        return inspect.cleandoc(own) if own else inspect.getdoc(type(target)) or ""
    doc = inspect.getdoc(target) or ""
    # The text that the dataclass decorator makes up says nothing.
    return "" if doc.startswith(f"{_name_of(target)}(") else doc


def _check_names_suffice(name: str, parameters: list[inspect.Parameter]) -> None:
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise not_a_tool(
                name,
                f"parameter {parameter.name!r} is positional-only, and calls give names; remove "
                "the '/', or wrap it in a function without it",
            )
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise not_a_tool(
                name,
                f"no call could fill *{parameter.name}, because calls give names; take a list "
                "under a name, and in a decorator use functools.wraps",
            )
        if index == 0 and parameter.name in ("self", "cls") and "." in name:
            problem = "it is a method without its object; take it from an instance: shop.price"
            raise not_a_tool(name, problem)


# --- annotations ---------------------------------------------------------------------------------


def _namespace_of(target: Tool) -> dict[str, Any]:
    """Return the globals in which the annotations of a function were written."""
    function: Any = inspect.unwrap(target)
    if inspect.isclass(function):
        function = function.__init__
    elif not inspect.isroutine(function):
        function = type(function).__call__
    function = inspect.unwrap(getattr(function, "__func__", function))
    written: dict[str, Any] | None = getattr(function, "__globals__", None)
    if written is not None:
        return written
    module = sys.modules.get(getattr(target, "__module__", None) or "")
    return {} if module is None else vars(module)


def _resolve(name: str, namespace: dict[str, Any], parameter: inspect.Parameter) -> Any:
    if parameter.annotation is parameter.empty:
        return Any
    try:
        annotation = _evaluate(parameter.annotation, namespace)
    except Exception as error:  # an annotation is any code
        reason = f"{type(error).__name__}: {error}"
        raise not_a_tool(
            name,
            f"the annotation of {parameter.name!r} can't be resolved ({reason:.200}); import what "
            "it names at run time and outside of functions, or annotate it as Any",
        ) from error
    if typing.get_origin(annotation) is typing.Unpack:
        problem = f"**{parameter.name} stands for a TypedDict; write its fields as parameters"
        raise not_a_tool(name, problem)
    return annotation


def _evaluate(annotation: Any, namespace: dict[str, Any]) -> Any:
    holder = SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, namespace, include_extras=True)["it"]


def _returned(target: Tool, signature: inspect.Signature, streams: bool) -> Any:
    """Return the annotation of the result; Any if it has none, or one that can't be resolved.

    Results are not checked, so that a wrong one does no harm.
    """
    if inspect.isclass(target):
        return target
    if signature.return_annotation is signature.empty:
        return Any
    try:
        annotation = _evaluate(signature.return_annotation, _namespace_of(target))
    except Exception:  # an annotation is any code
        return Any
    if not streams:
        return annotation
    items = typing.get_args(annotation)
    return items[0] if items else Any
