"""Calls by path that are made wrongly, as a reader of the documentation may make them at first: the
error says what to write instead. With a real worker."""

from __future__ import annotations

from typing import Any

import pytest

from snakepit_grpc_bridge import Platform, Settings
from snakepit_grpc_bridge.errors import ValidationFailed

pytestmark = pytest.mark.slow


async def test_the_error_says_what_to_write_instead() -> None:
    settings = Settings(model="none", workers=1, import_allow=("dspy", "bridge_programs"))
    function = "bridge_programs.Counter.twice"
    async with Platform(settings) as platform:
        for target, message in (
            ((function, "Ada"), r"is a function, .* pass what the function takes as args=\[...\]"),
            (("bridge_programs",), r"is a module; name one of its functions"),
        ):
            with pytest.raises(ValidationFailed, match=message):
                await platform.dspy.call(*target)
        not_by_path: Any = len
        with pytest.raises(ValidationFailed, match="write where the workers find the function"):
            await platform.tools.register_python_function("len", not_by_path)
        assert await platform.dspy.call(function, args=(4,)) == 8
