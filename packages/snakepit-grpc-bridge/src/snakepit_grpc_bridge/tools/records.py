"""Tools as they are stored, and as users see them; the records of their calls. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict

from snakepit_grpc_bridge.sessions.rows import GLOBAL_SESSION
from snakepit_grpc_bridge.storage import Table
from snakepit_grpc_bridge.tools.schema import Parameter, Schema

__all__ = [
    "TOOLS",
    "TOOL_CALLS",
    "Exposure",
    "Tool",
    "ToolCall",
    "ToolCallRow",
    "ToolKind",
    "ToolOptions",
    "ToolRow",
]

ToolKind = Literal["host", "worker"]
Exposure = Literal["global", "session"]
_EVERYBODY: Final = ("*",)


class ToolOptions(TypedDict, total=False):
    """What a tool can be registered with; see :meth:`ToolService.register`."""

    description: str | None
    replace: bool
    timeout: float | timedelta | None
    concurrency: int | None
    idempotent: bool
    allow: Sequence[str]
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tool:
    """A registered tool.

    Attributes:
        name: its name, unique in its session.
        session_id: the session it belongs to; "global" for those that every session can call.
        kind: "host" if its function runs in this process, "worker" if in the workers.
        path: where a worker finds the function; None for one of the host.
        schema: what it takes and gives.
        timeout: seconds that a call of it may take, its wait for others included; None for what its
            caller has left.
        concurrency: how many calls of it run at a time in this host; None for any number.
        idempotent: running it twice does no harm.
        allow: patterns of the ids of the sessions that may call it.
        metadata: plain data of the caller's.
        registered_at: when it was registered, in UTC.
    """

    name: str
    session_id: str
    kind: ToolKind
    path: str | None
    schema: Schema
    timeout: float | None
    concurrency: int | None
    idempotent: bool
    allow: tuple[str, ...]
    metadata: Mapping[str, Any]
    registered_at: datetime
    function: Any = field(default=None, repr=False, compare=False)

    @property
    def exposure(self) -> Exposure:
        """Who sees it: "global" if every session does, "session" if its own alone. Of those that
        see it, ``allow`` says which may call it.
        """
        return "global" if self.session_id == GLOBAL_SESSION else "session"

    @property
    def description(self) -> str:
        """What it does."""
        return self.schema.description

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it takes, in order."""
        return self.schema.parameters

    def allows(self, session_id: str) -> bool:
        """Whether a session may call it."""
        if self.allow == _EVERYBODY:
            return True
        return any(fnmatch.fnmatchcase(session_id, pattern) for pattern in self.allow)

    def describe(self) -> dict[str, Any]:
        """Return the tool as plain data, for programs in workers."""
        return {
            "name": self.name,
            "kind": self.kind,
            "exposure": self.exposure,
            "description": self.description,
            "parameters": [
                {
                    "name": each.name,
                    "type": each.type,
                    "required": each.required,
                    "default": each.default,
                    "description": each.description,
                }
                for each in self.parameters
            ],
            "streams": self.schema.streams,
            "schema": self.schema.to_json_schema(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """The record of one call of a tool. What went in and came out is not kept.

    Attributes:
        tool: its name.
        session_id: the session that it was called in.
        caller: the id of the worker that called it; None for the host.
        started: when, in UTC.
        duration: how long it took, in seconds.
        outcome: "ok", or the code of the error.
    """

    tool: str
    session_id: str
    caller: str | None
    started: datetime
    duration: float
    outcome: str


@dataclass(frozen=True, slots=True)
class ToolRow:
    """A tool whose function is found by its path. (A function of a process is not stored.)"""

    session_id: str
    name: str
    path: str
    timeout: float | None
    concurrency: int | None
    idempotent: bool
    registered_at: float
    allow: Any
    schema: Any
    metadata: Any


@dataclass(frozen=True, slots=True)
class ToolCallRow:
    """A call of a tool. ``number`` is unique in the session, and grows."""

    session_id: str
    number: int
    tool: str
    caller: str | None
    started: float
    duration: float
    outcome: str


TOOLS: Final = Table(
    "tools", ToolRow, key=("session_id", "name"), values=("allow", "schema", "metadata")
)
TOOL_CALLS: Final = Table(
    "tool_calls",
    ToolCallRow,
    key=("session_id", "number"),
    indexes={"time": ("started",)},
)
