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
    """The instances of all sessions, dead or alive, until they are released."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[str, InstanceRecord]] = {}

    def add(self, session_id: str, stored: Mapping[str, str]) -> None:
        """Note what a call has stored: class paths by instance id."""
        for instance_id, class_path in stored.items():
            self._sessions.setdefault(session_id, {})[instance_id] = InstanceRecord(
                instance_id=instance_id, class_path=class_path
            )

    def describe(self, session_id: str, instance_id: str, signature: SignatureSpec | None) -> None:
        """Add to a record what is known of the instance's signature."""
        records = self._sessions.get(session_id, {})
        if instance_id in records:
            records[instance_id] = dataclasses.replace(records[instance_id], signature=signature)

    def get(self, session_id: str, instance_id: str) -> InstanceRecord:
        """Return a record.

        Raises:
            InstanceNotFound: there is none.
        """
        record = self._sessions.get(session_id, {}).get(instance_id)
        if record is None:
            raise InstanceNotFound.of(instance_id, session_id)
        return record

    def remove(self, session_id: str, instance_id: str) -> bool:
        """Drop a record; say whether there was one."""
        return self._sessions.get(session_id, {}).pop(instance_id, None) is not None

    def lost(self, session_id: str, instance_id: str | None) -> SessionLost | None:
        """Return the error for an instance that existed and that its worker does not have."""
        record = self._sessions.get(session_id, {}).get(instance_id or "")
        if record is None:
            return None
        return SessionLost.of(session_id, record.instance_id, record.class_path)

    def drop(self, session_id: str) -> list[str]:
        """Drop all records of a session; return the ids of its instances."""
        return list(self._sessions.pop(session_id, {}))
