"""A platform with real workers and a scripted model, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from snakepit_grpc_bridge import Platform, Settings
from snakepit_grpc_bridge.testing import ScriptedModel

ALLOWED = ("dspy", "bridge_programs", "state_programs")


@asynccontextmanager
async def running_platform(*responses: Any, **settings: Any) -> AsyncIterator[Platform]:
    """A platform of one worker, unless told otherwise; the model gives these answers."""
    model = ScriptedModel(responses=responses or [{"answer": "yes"}])
    options: dict[str, Any] = {"workers": 1, "import_allow": ALLOWED, "timeout": 30}
    async with Platform(Settings(model=model, **(options | settings))) as platform:
        yield platform
