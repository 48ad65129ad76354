"""For tests of programs that use the platform.

``ScriptedModel`` answers from a script, without a language model::

    Settings(model=ScriptedModel(responses=[{"answer": "Paris"}]), workers=1)
"""

from __future__ import annotations

from snakepit_grpc_bridge.lm.scripted import ScriptedModel

__all__ = ["ScriptedModel"]
