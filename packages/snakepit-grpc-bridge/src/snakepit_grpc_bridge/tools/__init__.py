"""Tools: functions that programs call by name, of the host or of the workers.

================  ==============================================================================
``schema``        what a tool takes and gives
``records``       tools as they are stored and shown; the records of their calls
``registry``      which there are, and which a session may call
``running``       runs those of the host
``failing``       what their callers get when they raise
``paths``         finds those of the workers, there
``audit``         writes down who called what
``service``       the face that users see
``worker_view``   the tools of a session, as code in a worker sees them
================  ==============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit.lazy_names import lazy_names

if TYPE_CHECKING:
    from snakepit_grpc_bridge.tools.records import Tool, ToolCall, ToolOptions
    from snakepit_grpc_bridge.tools.schema import Parameter, Schema, read_schema
    from snakepit_grpc_bridge.tools.service import ToolService

__all__ = ["Parameter", "Schema", "Tool", "ToolCall", "ToolOptions", "ToolService", "read_schema"]

# Imported when first used: a worker reads schemas, and needs no service.
_HOMES = {
    "Parameter": "schema",
    "Schema": "schema",
    "Tool": "records",
    "ToolCall": "records",
    "ToolOptions": "records",
    "ToolService": "service",
    "read_schema": "schema",
}


if not TYPE_CHECKING:  # or else a type checker would accept any name
    __getattr__ = lazy_names(__name__, _HOMES)
