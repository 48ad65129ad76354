"""The objects that a worker keeps for its sessions, and how values refer to them. Worker side."""

from __future__ import annotations

import dataclasses
import re
import secrets
import sys
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from snakepit_grpc_bridge.dspy.paths import STORED
from snakepit_grpc_bridge.errors import InstanceNotFound, ValidationFailed

__all__ = ["Instances", "class_path_of", "to_plain"]

#: Ids have a form of their own, so that a text that happens to begin with "stored." stays a text.
_ADDRESS = re.compile(r"stored\.([A-Za-z_][A-Za-z0-9_]*_[0-9a-f]{16})\Z")
_DEPTH_LIMIT = 64
_SCALARS = (
    *(type(None), bool, int, float, complex, str, bytes),
    *(date, time, timedelta, Decimal, UUID, PurePath, Enum),
)


class Instances:
    """The stored objects of all sessions in this worker. Each session sees its own alone."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[str, Any]] = {}

    def store(self, session_id: str, instance: Any) -> str:
        """Keep an object until it is released or the session closes; return its id."""
        instance_id = f"{type(instance).__name__}_{secrets.token_hex(8)}"
        self._sessions.setdefault(session_id, {})[instance_id] = instance
        return instance_id

    def get(self, session_id: str | None, instance_id: str) -> Any:
        """Return a session's object.

        Raises:
            InstanceNotFound: it is not here.
        """
        stored = self._sessions.get(session_id or "", {})
        if instance_id not in stored:
            raise InstanceNotFound.of(instance_id, session_id)
        return stored[instance_id]

    def forget(self, session_id: str | None, instance_ids: Iterable[str]) -> int:
        """Forget objects of a session; return how many there were."""
        stored = self._sessions.get(session_id or "", {})
        found = sum(stored.pop(instance_id, None) is not None for instance_id in instance_ids)
        if not stored:
            self._sessions.pop(session_id or "", None)
        return found

    def resolve(self, session_id: str | None, value: Any) -> Any:
        """Return ``value`` with every address ``"stored.<id>"`` in it replaced by its object.

        Raises:
            InstanceNotFound: an address leads nowhere.
        """
        if isinstance(value, str):
            match = _ADDRESS.match(value)
            return value if match is None else self.get(session_id, match[1])
        if isinstance(value, dict):
            return {key: self.resolve(session_id, item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.resolve(session_id, item) for item in value)
        return value


class _Plainer:
    """Converts one result; collects what had to be stored."""

    def __init__(self, instances: Instances, session_id: str | None, keep: bool) -> None:
        self._instances = instances
        self._session_id = session_id
        self._keep = keep
        self.stored: dict[str, str] = {}

    def convert(self, value: Any, path: str, depth: int = 0) -> Any:
        if depth > _DEPTH_LIMIT:
            raise ValidationFailed(f"{path} is nested more than {_DEPTH_LIMIT} levels deep")
        if isinstance(value, _SCALARS) or _is_array(value):
            return value
        members = _members_of(value)
        if members is not None:
            return {
                key: self.convert(item, f"{path}.{key}", depth + 1) for key, item in members.items()
            }
        if isinstance(value, (list, tuple, set, frozenset)):
            items = [
                self.convert(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(value)
            ]
            return items if isinstance(value, list) else _same_container(value, items)
        return self._reference(value, path)

    def _reference(self, value: Any, path: str) -> dict[str, str]:
        class_path = class_path_of(value)
        if not self._keep or self._session_id is None:
            raise ValidationFailed(
                f"{path} is a {class_path}, which is no plain data; give the call a session_id to "
                "keep it there and get its address",
                details={"class_path": class_path},
            )
        instance_id = self._instances.store(self._session_id, value)
        self.stored[instance_id] = class_path
        return {"stored": STORED + instance_id, "class_path": class_path}


def to_plain(
    value: Any, instances: Instances, session_id: str | None, *, keep: bool
) -> tuple[Any, dict[str, str]]:
    """Return a result as plain data, and the class paths of what was stored for it, by id.

    Predictions and examples become mappings of their fields. What is no plain data is stored in
    the session, and ``{"stored": address, "class_path": ...}`` stands for it.

    Raises:
        ValidationFailed: something is no plain data, and ``keep`` is False.
    """
    plainer = _Plainer(instances, session_id, keep)
    return plainer.convert(value, "the result"), plainer.stored


def class_path_of(value: Any) -> str:
    """Return the dotted path of an object's class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _members_of(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, dict):
        return value
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(getattr(value, "toDict", None)) and hasattr(value, "inputs"):  # Example, Prediction
        return dict(value.items())
    fields = getattr(type(value), "model_fields", None)  # a pydantic model
    if isinstance(fields, dict) and hasattr(value, "model_dump"):
        return {name: getattr(value, name) for name in fields}
    return None


def _same_container(value: Any, items: list[Any]) -> Any:
    kind = next(kind for kind in (tuple, set, frozenset) if isinstance(value, kind))
    return kind(items)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))
