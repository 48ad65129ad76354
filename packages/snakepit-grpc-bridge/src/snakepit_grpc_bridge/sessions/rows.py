"""Sessions as they are stored, and as users see them. Pure."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal, TypedDict, get_args

from snakepit.errors import ConfigurationError
from snakepit.options import Affinity, UseDefault, affinity_option, whole_number
from snakepit_grpc_bridge.errors import ValidationFailed
from snakepit_grpc_bridge.storage import Table

__all__ = [
    "GLOBAL_SESSION",
    "SESSIONS",
    "SESSION_USE",
    "Isolation",
    "Quotas",
    "Session",
    "SessionOptions",
    "SessionRow",
    "UseRow",
    "check_session_id",
    "ended_use",
    "isolation_option",
    "new_use",
    "plain_quotas",
]

#: The application-wide session: its variables and tools are seen from every other one.
GLOBAL_SESSION: Final = "global"
_LONGEST_ID: Final = 256

Isolation = Literal["shared", "session"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quotas:
    """How much one session may hold. What would go beyond is refused with QuotaExceeded.

    Attributes:
        variables: how many variables.
        bytes: how much their values take together, roughly.
        tools: how many tools.

    Raises:
        ConfigurationError: one is no whole number of at least 0.
    """

    variables: int = 1000
    bytes: int = 1 << 30
    tools: int = 100

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            whole_number(each.name, getattr(self, each.name), least=0)


class SessionOptions(TypedDict, total=False):
    """What a session can be started with; see :meth:`SessionService.start`."""

    metadata: Mapping[str, Any] | None
    ttl: float | timedelta | Literal[UseDefault.USE_DEFAULT] | None
    affinity: Affinity
    concurrency: int
    isolation: Isolation
    quotas: Quotas | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What is known of a session. A snapshot: later use does not change it.

    Attributes:
        id: its id.
        metadata: what was given when it was started; read-only.
        created: when it was started, in UTC.
        last_used: when something was last done in it, in UTC. Of uses in other hosts it is known
            within a tenth of ``ttl``.
        ttl: seconds without use after which it expires; None for never.
        expires: when that is, if nothing is done in it until then.
        affinity: how its calls are bound to the worker that served it before; see
            ``snakepit.Pool.execute``.
        concurrency: how many of its calls run at a time; the others wait. 1 keeps them in order.
        isolation: "session" if it has a worker process of its own, "shared" if its calls run in
            workers that serve other sessions, too.
        quotas: how much it may hold.
    """

    id: str
    metadata: Mapping[str, Any]
    created: datetime
    last_used: datetime
    ttl: float | None
    expires: datetime | None
    affinity: Affinity
    concurrency: int
    isolation: Isolation
    quotas: Quotas


@dataclass(frozen=True, slots=True)
class SessionRow:
    """What does not change of a session."""

    id: str
    created: float
    affinity: str
    concurrency: int
    isolation: str
    quotas: Any
    metadata: Any

    def limits(self) -> Quotas:
        """How much it may hold."""
        return Quotas(**self.quotas)


@dataclass(frozen=True, slots=True)
class UseRow:
    """What changes with the use of a session, and what its calls ask for. It is kept small.

    ``incarnation`` tells the session from earlier ones of its id. ``ended`` is when it expired:
    then all else of it is gone. ``revision`` grows with each change of what it holds.
    ``variables``, ``bytes`` and ``tools`` are what of its quotas is taken.
    """

    session_id: str
    incarnation: str
    last_used: float
    ttl: float | None
    expires: float | None
    ended: float | None
    revision: int
    variables: int
    bytes: int
    tools: int

    def used(self, at: float) -> UseRow:
        """The row after a use."""
        return self._after(at, self.revision, self.variables, self.bytes, self.tools)

    def changed(self, at: float, variables: int, size: int, tools: int) -> UseRow:
        """The row after a use that changed what the session holds, by so much."""
        return self._after(
            at,
            self.revision + 1,
            self.variables + variables,
            self.bytes + size,
            self.tools + tools,
        )

    def _after(self, at: float, revision: int, variables: int, size: int, tools: int) -> UseRow:
        last_used = max(at, self.last_used)
        expires = None if self.ttl is None else last_used + self.ttl
        # Each write of a variable makes one: dataclasses.replace() takes several times as long.
        return UseRow(
            self.session_id,
            self.incarnation,
            last_used,
            self.ttl,
            expires,
            self.ended,
            revision,
            variables,
            size,
            tools,
        )


SESSIONS: Final = Table("sessions", SessionRow, key=("id",), values=("quotas", "metadata"))
SESSION_USE: Final = Table(
    "session_use",
    UseRow,
    key=("session_id",),
    indexes={"expiry": ("expires",), "ended": ("ended",)},
)


def session_of(row: SessionRow, use: UseRow) -> Session:
    """What users see of a session."""
    return Session(
        id=row.id,
        metadata=MappingProxyType(dict(row.metadata)),
        created=_moment(row.created),
        last_used=_moment(use.last_used),
        ttl=use.ttl,
        expires=None if use.expires is None else _moment(use.expires),
        affinity=affinity_option(row.affinity),  # type: ignore[arg-type]  # it is checked
        concurrency=row.concurrency,
        isolation=isolation_option(row.isolation),
        quotas=row.limits(),
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def check_session_id(session_id: object) -> str:
    """Return a session's id.

    Raises:
        ValidationFailed: it is none.
    """
    valid = isinstance(session_id, str) and session_id.strip() and session_id.isprintable()
    if not valid or len(str(session_id)) > _LONGEST_ID:
        raise ValidationFailed(
            f"{session_id!r:.100} is no session id; use printable text of 1 to {_LONGEST_ID} "
            "characters, or none to get a random one"
        )
    return str(session_id)


def isolation_option(value: object) -> Isolation:
    """Whether a session has a process of its own.

    Raises:
        ConfigurationError: it is neither "shared" nor "session".
    """
    for allowed in get_args(Isolation):
        if value == allowed:
            return allowed  # type: ignore[no-any-return]
    raise ConfigurationError(
        f"isolation is {value!r}; it has to be one of {get_args(Isolation)}",
        details={"option": "isolation"},
    )


def plain_quotas(quotas: Quotas) -> dict[str, int]:
    """Quotas as they are stored."""
    return {"variables": quotas.variables, "bytes": quotas.bytes, "tools": quotas.tools}


def new_use(row: SessionRow, ttl: float | None) -> UseRow:
    """The use of a session that begins."""
    expires = None if ttl is None else row.created + ttl
    incarnation = secrets.token_hex(8)
    return UseRow(row.id, incarnation, row.created, ttl, expires, None, 0, 0, 0, 0)


def ended_use(use: UseRow, now: float) -> UseRow:
    """What is remembered of a session that has expired."""
    return dataclasses.replace(use, expires=None, ended=now, variables=0, bytes=0, tools=0)
