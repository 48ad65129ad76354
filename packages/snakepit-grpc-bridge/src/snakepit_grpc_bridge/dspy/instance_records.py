"""What the host knows of the instances that workers keep: enough to say what became of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from snakepit_grpc_bridge.dspy.signature import SignatureSpec
from snakepit_grpc_bridge.errors import InstanceNotFound, SessionLost

__all__ = ["InstanceRecord", "InstanceRecords"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceRecord:
    """One instance; ``signature`` if its call takes exactly the fields of one."""

    instance_id: str
    class_path: str
    signature: SignatureSpec | None = None


class InstanceRecords:
    """The instances of all sessions. A session is bound to its worker once it may have one."""

    def __init__(self) -> None:
        self._bound: dict[str, dict[str, InstanceRecord]] = {}

    def bind(self, session_id: str) -> None:
        """Note that the session has, or is about to have, instances in its worker."""
        self._bound.setdefault(session_id, {})

    def is_bound(self, session_id: str) -> bool:
        """Whether the session's calls must go to its own worker."""
        return session_id in self._bound

    def add(self, session_id: str, stored: Mapping[str, str]) -> None:
        """Note what a call has stored: class paths by instance id."""
        records = self._bound.get(session_id)
        if records is None:
            return  # the session was closed meanwhile, and its worker has forgotten them
        for instance_id, class_path in stored.items():
            records[instance_id] = InstanceRecord(instance_id=instance_id, class_path=class_path)

    def describe(self, session_id: str, instance_id: str, signature: SignatureSpec | None) -> None:
        """Add to a record what is known of the instance's signature."""
        records = self._bound.get(session_id, {})
        if instance_id in records:
            records[instance_id] = dataclasses.replace(records[instance_id], signature=signature)

    def get(self, session_id: str, instance_id: str) -> InstanceRecord:
        """Return a record.

        Raises:
            InstanceNotFound: there is none.
        """
        record = self._bound.get(session_id, {}).get(instance_id)
        if record is None:
            raise InstanceNotFound.of(instance_id, session_id)
        return record

    def remove(self, session_id: str, instance_id: str) -> bool:
        """Drop a record; say whether there was one."""
        return self._bound.get(session_id, {}).pop(instance_id, None) is not None

    def lost(self, session_id: str, instance_id: str | None) -> SessionLost | None:
        """Return the error for an instance that existed and that its worker does not have."""
        record = self._bound.get(session_id, {}).get(instance_id or "")
        if record is None:
            return None
        return SessionLost.of(session_id, record.instance_id, record.class_path)

    def drop(self, session_id: str) -> None:
        """Drop all records of a session."""
        self._bound.pop(session_id, None)
