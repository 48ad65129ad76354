"""What a tool takes and gives: read from its function, sent as plain data, checked on both sides.

======================  ===========================================================================
with the function       ``signature`` (what Python knows); ``annotations``, ``preparing``,
                        ``json_schema`` and ``converting`` (pydantic); ``docstrings`` (griffe);
                        ``results``
on both sides           ``tool_schema`` (what the others make); ``compiling`` (reads values by the
                        plain description), ``choices``, ``constraints``, ``kinds``, ``arrays``,
                        ``travel``, ``problems``
======================  ===========================================================================

The second row needs nothing but the standard library.
"""

from __future__ import annotations

from snakepit_grpc_bridge.tools.schema.names import check_tool_name
from snakepit_grpc_bridge.tools.schema.results import plain_result
from snakepit_grpc_bridge.tools.schema.tool_schema import Parameter, Schema, read_schema

__all__ = ["Parameter", "Schema", "check_tool_name", "plain_result", "read_schema"]
