"""The commands of a worker process that runs DSPy programs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import snakepit
from snakepit_grpc_bridge.dspy.build import build_signature
from snakepit_grpc_bridge.dspy.instances import Instances, class_path_of, to_plain
from snakepit_grpc_bridge.dspy.paths import STORED, check_method, check_path, check_target, resolve
from snakepit_grpc_bridge.dspy.programs import Programs
from snakepit_grpc_bridge.dspy.runtime import call_context, load_dspy, typed_errors, warm_up
from snakepit_grpc_bridge.dspy.schema import describe
from snakepit_grpc_bridge.dspy.signature import parse_signature
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.python.worker import PythonCommands

__all__ = ["ProgramWorker"]


class ProgramWorker(PythonCommands):
    """Runs DSPy programs for the sessions that the pool sends here.

    ``context`` is the same in every command: the description of the call's language model, or None
    for a call that needs none.
    """

    def __init__(self, *, import_allow: Sequence[str] = ("dspy",)) -> None:
        self._allowed = tuple(import_allow)
        self._instances = Instances()
        self._programs = Programs()

    @classmethod
    def warm(cls) -> None:
        """Import and exercise DSPy in the template that workers are forked from."""
        warm_up()

    @snakepit.command(name="dspy.predict")
    def predict(
        self, signature: Mapping[str, Any], inputs: Mapping[str, Any], context: Any = None
    ) -> dict[str, Any]:
        """Run ``dspy.Predict``; return ``fields`` and the process id of the ``worker``."""
        return self._run("Predict", signature, inputs, context)

    @snakepit.command(name="dspy.chain_of_thought")
    def chain_of_thought(
        self, signature: Mapping[str, Any], inputs: Mapping[str, Any], context: Any = None
    ) -> dict[str, Any]:
        """Run ``dspy.ChainOfThought``: as ``dspy.predict``, with a field ``reasoning``."""
        return self._run("ChainOfThought", signature, inputs, context)

    @snakepit.command(name="dspy.call")
    def call(
        self,
        class_path: str,
        method: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        keep: bool,
        context: Any = None,
    ) -> dict[str, Any]:
        """Call what the path and method name; ``__init__`` of a class stores an instance.

        Returns ``value``, the result as plain data, and ``stored``, the class paths of everything
        that was stored for it, by id. With ``keep`` False nothing is stored.
        """
        session_id = _session_id()
        given = [self._instances.resolve(session_id, value) for value in args]
        named = {key: self._instances.resolve(session_id, value) for key, value in kwargs.items()}
        with call_context(context), typed_errors():
            function = self._find(session_id, class_path, method)
            if inspect.isclass(function):
                _convert_signature(function, given, named)
            result = function(*given, **named)
            _check_not_async(class_path, method, result)
            value, stored = to_plain(result, self._instances, session_id, keep=keep)
        return {"value": value, "stored": stored}

    @snakepit.command(name="dspy.execute")
    def execute(
        self, instance_id: str, method: str, inputs: Mapping[str, Any], context: Any = None
    ) -> dict[str, Any]:
        """Call a stored instance with keyword arguments that are data, never addresses."""
        session_id = _session_id()
        instance = self._instances.get(session_id, instance_id)
        with call_context(context), typed_errors():
            function = _method_of(instance, class_path_of(instance), method)
            result = function(**inputs)
            _check_not_async(class_path_of(instance), method, result)
            value, stored = to_plain(result, self._instances, session_id, keep=True)
        return {"value": value, "stored": stored}

    @snakepit.command(name="dspy.discover_schema")
    def discover_schema(self, module_path: str) -> dict[str, Any]:
        """Describe a module, class or function."""
        load_dspy()
        return describe(module_path, resolve(check_path(module_path, self._allowed), self._allowed))

    @snakepit.command(name="dspy.forget")
    def forget(self, instance_ids: Sequence[str]) -> int:
        """Forget stored instances of the call's session; return how many there were."""
        return self._instances.forget(_session_id(), instance_ids)

    def _run(
        self, kind: str, signature: Mapping[str, Any], inputs: Mapping[str, Any], context: Any
    ) -> dict[str, Any]:
        with call_context(context), typed_errors():
            fields = self._programs.run(kind, parse_signature(signature), inputs)
            value, _ = to_plain(fields, self._instances, _session_id(), keep=False)
        return {"fields": value, "worker": os.getpid()}

    def _find(self, session_id: str | None, class_path: str, method: str) -> Any:
        """Return what is to be called: a class, a function or a bound method."""
        check_target(class_path, self._allowed)
        check_method(method)
        load_dspy()
        if class_path.startswith(STORED):
            instance = self._instances.get(session_id, class_path.removeprefix(STORED))
            return _method_of(instance, class_path, method)
        found = resolve(class_path, self._allowed)
        if isinstance(found, type):
            return _class_function(found, class_path, method)
        if inspect.isroutine(found) and method == "__call__":
            return found
        return _method_of(found, class_path, method, self._allowed)


def _session_id() -> str | None:
    return snakepit.current_call().session_id


def _class_function(cls: type, class_path: str, method: str) -> Any:
    if method == "__init__":
        return cls
    if isinstance(inspect.getattr_static(cls, method, None), (staticmethod, classmethod)):
        return getattr(cls, method)
    raise ValidationFailed(
        f"{class_path} is a class, and {method!r} is no class method or static method of it; "
        "create an instance with '__init__', then call 'stored.<id>'"
    )


def _method_of(
    owner: Any, class_path: str, method: str, allowed: Sequence[str] | None = None
) -> Any:
    """Return a method of an instance, or a function of a module."""
    if method == "__init__":
        raise ValidationFailed(f"{class_path} is no class, so it can't be created")
    if inspect.ismodule(owner) and allowed is not None and method != "__call__":
        return resolve(f"{class_path}.{method}", allowed)
    found = getattr(owner, method, None)
    if not callable(found):
        raise ValidationFailed(
            _no_method(owner, class_path, method),
            details={"class_path": class_path, "method": method},
        )
    return found


def _no_method(owner: Any, class_path: str, method: str) -> str:
    if inspect.isroutine(owner):
        return (
            f"{class_path} is a function, and {method!r} no method of it; pass what the function "
            "takes as args=[...] or kwargs={...}"
        )
    if inspect.ismodule(owner):
        return f"{class_path} is a module; name one of its functions, as in '{class_path}.NAME'"
    known = ", ".join(
        name
        for name in dir(type(owner))
        if not name.startswith("_") and callable(getattr(type(owner), name, None))
    )
    return f"{class_path} has no method {method!r} (it has: {known or 'none'})"


def _convert_signature(cls: type, given: list[Any], named: dict[str, Any]) -> None:
    """Check and build the signature that a DSPy class is created with."""
    if not cls.__module__.startswith("dspy."):
        return
    # Of __init__ itself: DSPy's metaclass hides it behind (*args, **kwargs).
    parameters = list(inspect.signature(cls.__init__).parameters)[1:]  # type: ignore[misc]
    if "signature" not in parameters:
        return
    position = parameters.index("signature")
    if isinstance(named.get("signature"), (str, Mapping)):
        named["signature"] = build_signature(parse_signature(named["signature"]))
    elif len(given) > position and isinstance(given[position], (str, Mapping)):
        given[position] = build_signature(parse_signature(given[position]))


def _check_not_async(class_path: str, method: str, result: Any) -> None:
    if inspect.iscoroutine(result):
        result.close()
    elif not inspect.isasyncgen(result):
        return
    raise ValidationFailed(
        f"{method!r} of {class_path} is async, and programs run synchronously in their worker; "
        "call its sync counterpart"
    )
