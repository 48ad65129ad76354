"""Arguments for functions in workers that are given in the wrong place or shape."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from running_platform import running_platform as running

from snakepit_grpc_bridge.errors import ValidationFailed

LISTED = "pass positional arguments as args=[...] and named ones as kwargs={...}"
NAMED = "pass a mapping of argument names to values"
# (The services know no such argument: hence Any.)
GIVEN: list[tuple[Callable[[Any], Awaitable[Any]], str]] = [
    (lambda p: p.dspy.call("dspy.evaluate", ["x"]), f"the method is a list, not a name; {LISTED}"),
    (
        lambda p: p.dspy.call("dspy.evaluate", {"x": 1}),
        f"the method is a dict, not a name; {LISTED}",
    ),
    (lambda p: p.dspy.call("dspy", "f", {"x": 1}), "args is a dict; pass the positional arguments"),
    (lambda p: p.dspy.call("dspy", "f", "text"), "args is a str; pass the positional arguments"),
    (lambda p: p.dspy.call("dspy", "f", 1), "args is a int; pass the positional arguments"),
    (
        lambda p: p.dspy.call("dspy", "f", [], ["x"]),
        f"kwargs is a list; {NAMED}; positional ones go",
    ),
    (lambda p: p.python.call("dspy.f", {"x": 1}), "args is a dict"),
    (lambda p: p.python.call("dspy.f", [], ["x"]), "kwargs is a list"),
    (lambda p: anext(p.python.stream("dspy.f", "text")), "args is a str"),
    (lambda p: p.dspy.create_instance("dspy.Predict", {"x": 1}, session_id="s"), "args is a dict"),
    (
        lambda p: p.dspy.create_instance("dspy.Predict", [], ["x"], session_id="s"),
        "kwargs is a list",
    ),
]


async def test_what_is_passed_wrongly_is_told_the_right_way_and_nothing_is_sent() -> None:
    async with running() as platform:
        before = platform.pool.stats().submitted
        await platform.sessions.start("s")
        for use, told in GIVEN:
            with pytest.raises(ValidationFailed) as caught:
                await use(platform)
            assert told in str(caught.value)
        assert platform.pool.stats().submitted == before

        counter = await platform.dspy.create_instance("bridge_programs.Counter", session_id="s")
        inputs: Any = [1]
        with pytest.raises(ValidationFailed, match=f"inputs is a list; {NAMED}"):
            await platform.dspy.execute_instance(counter, inputs, session_id="s")
        for args in (["The Cat!"], ("The Cat!",)):
            assert await platform.dspy.call("dspy.evaluate", "normalize_text", args) == "cat"
