"""Events: what happens in pools and in the code they run, told to whoever listens.

::

    from snakepit import telemetry

    telemetry.attach("snakepit.call.*", lambda event, measurements, metadata: ...)

All events with their measurements and metadata are in :mod:`snakepit.telemetry.catalogue` and
docs/telemetry.md. While nobody listens, they cost nearly nothing. Spans and metrics of
OpenTelemetry are made by :mod:`snakepit.telemetry.opentelemetry`; records of logging get the
correlation id of their call by :mod:`snakepit.telemetry.logs`.
"""

from __future__ import annotations

from snakepit.telemetry.bus import (
    Handler,
    Span,
    TraceSource,
    attach,
    detach,
    execute,
    set_trace_source,
    span,
)

__all__ = [
    "Handler",
    "Span",
    "TraceSource",
    "attach",
    "detach",
    "execute",
    "set_trace_source",
    "span",
]
