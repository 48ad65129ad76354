"""DSPy programs with the embedded model, through the whole platform."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from snakepit_grpc_bridge import Platform, Settings

pytestmark = [pytest.mark.model, pytest.mark.slow]

ENTITIES = "text -> people: list[str], organizations: list[str], locations: list[str]"
FEELING = "text -> category: Literal['positive', 'negative']"


@asynccontextmanager
async def running() -> AsyncIterator[Platform]:
    async with Platform(Settings(model="embedded", workers=1)) as platform:
        yield platform


async def test_every_type_of_field() -> None:
    async with running() as platform:
        predict = platform.dspy.predict
        for question, answer in (
            ("What is the capital of France?", "Paris"),
            ("How many legs does a spider have?", "8"),
            ("Which planet is called the red planet?", "Mars"),
        ):
            given = await predict("question -> answer", {"question": question})
            assert answer in given["answer"]
        legs = {"question": "How many legs does a spider have?"}
        assert (await predict("question -> answer: int", legs))["answer"] == 8
        assert (await predict("question -> answer: float", legs))["answer"] == 8.0

        text = "Tim Cook, the CEO of Apple, met Angela Merkel in Berlin."
        assert dict(await predict(ENTITIES, {"text": text})) == {
            "people": ["Tim Cook", "Angela Merkel"],
            "organizations": ["Apple"],
            "locations": ["Berlin"],
        }
        assert dict(await predict(ENTITIES, {"text": "nobody and nothing"})) == {
            "people": [],
            "organizations": [],
            "locations": [],
        }
        for text, feeling in (
            ("The soup was cold and the waiter rude.", "negative"),
            ("What a wonderful trip, thank you!", "positive"),
        ):
            assert (await predict(FEELING, {"text": text}))["category"] == feeling

        several = await predict(
            "text -> urgent: bool, keywords: list[str], note: str | None, sizes: list[int]",
            {"text": "Boxes of 3 and 4 litres are needed in the kitchen."},
        )
        assert isinstance(several["urgent"], bool)
        assert all(isinstance(size, int) for size in several["sizes"])
        thought = await platform.dspy.chain_of_thought(
            "question -> answer", {"question": "What is the capital of France?"}
        )
        assert thought.reasoning
        assert "Paris" in thought["answer"]
