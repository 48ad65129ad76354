"""The trace context of a call: what travels beside it. Pure.

A call may carry ``correlation_id``, the text by which its events and log records are found, and the
headers ``traceparent`` and ``tracestate`` of the W3C recommendation "Trace Context" (level 1). With
them goes ``idempotency_key``, its caller's own name for it: a place that only some calls have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

CORRELATION_ID: Final = "correlation_id"
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
IDEMPOTENCY_KEY: Final = "idempotency_key"

# Version, trace id, parent id, flags.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_TRACESTATE: Final = re.compile(r"[ -~\t]{1,512}")
_TRACE_ID: Final = slice(3, 35)
#: Characters of a correlation id that a peer may send.
_CORRELATION_ID: Final = re.compile(r"[!-~]{1,200}")
# What can stand in a header of HTTP, where providers take it.
_IDEMPOTENCY_KEY: Final = re.compile(r"[!-~]{1,255}")


def headers(trace: Mapping[str, Any] | None) -> dict[str, str]:
    """The valid headers of a trace context; none without a valid ``traceparent``."""
    if not trace:
        return {}
    parent, state = trace.get(TRACEPARENT), trace.get(TRACESTATE)
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return {}
    if isinstance(state, str) and _TRACESTATE.fullmatch(state):
        return {TRACEPARENT: parent, TRACESTATE: state}
    return {TRACEPARENT: parent}


def correlation_id_of(trace: Mapping[str, Any] | None) -> str | None:
    """The correlation id that a peer has sent, if it has."""
    found = None if trace is None else trace.get(CORRELATION_ID)
    return found if isinstance(found, str) and _CORRELATION_ID.fullmatch(found) else None


def is_idempotency_key(value: object) -> bool:
    """Whether a call can be named so."""
    return isinstance(value, str) and _IDEMPOTENCY_KEY.fullmatch(value) is not None


def idempotency_key_of(trace: Mapping[str, Any] | None) -> str | None:
    """Its caller's name for a call, if it has one."""
    found = None if trace is None else trace.get(IDEMPOTENCY_KEY)
    return found if is_idempotency_key(found) else None


def in_same_trace(theirs: Mapping[str, str], ours: Mapping[str, str]) -> bool:
    """Whether two valid contexts belong to one trace."""
    return theirs[TRACEPARENT][_TRACE_ID] == ours.get(TRACEPARENT, "")[_TRACE_ID]
