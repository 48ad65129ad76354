"""An ML platform on snakepit's worker processes: sessions, variables, tools, models, DSPy programs.

Importing it starts nothing and loads neither DSPy nor a model. :class:`Platform` runs it all;
``snakepit_grpc_bridge.worker`` is what your own programs use inside a worker, ``.testing`` is for
tests, ``.errors`` holds what can go wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snakepit.lazy_names import lazy_names

if TYPE_CHECKING:
    from snakepit_grpc_bridge.dspy.results import PredictionResult
    from snakepit_grpc_bridge.platform import Platform
    from snakepit_grpc_bridge.sessions import Session
    from snakepit_grpc_bridge.settings import Settings
    from snakepit_grpc_bridge.tools import Tool
    from snakepit_grpc_bridge.variables import Variable

__all__ = ["Platform", "PredictionResult", "Session", "Settings", "Tool", "Variable", "__version__"]

__version__ = "0.1.0"

# Imported when first used: workers import modules below this one, and need no platform.
_HOMES = {
    "Platform": "platform",
    "PredictionResult": "dspy.results",
    "Session": "sessions",
    "Settings": "settings",
    "Tool": "tools",
    "Variable": "variables",
}


if not TYPE_CHECKING:  # or else a type checker would accept any name
    __getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
