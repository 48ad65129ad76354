"""The labelled set measures something only if no prompt shows a part of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from source_tree import ROOT

DATA = Path(__file__).parent / "data"
LM = ROOT / "packages/snakepit-grpc-bridge/src/snakepit_grpc_bridge/lm"
ENTITY_TYPES = ("people", "organizations", "locations")


def labelled() -> Iterator[str]:
    """Every text, question and entity of the set."""
    for file in DATA.glob("*.json"):
        for row in json.loads(file.read_text()):
            yield row["text"] if "text" in row else row["question"]
            for kind in ENTITY_TYPES:
                yield from row.get(kind, ())


def pieces_in(source: str) -> list[str]:
    """What of the set occurs in a source, as whole words, however it is written and wrapped."""
    text = " ".join(re.sub(r"\"\s+\"", "", source).split()).casefold()
    return sorted(
        piece
        for piece in set(labelled())
        if re.search(rf"(?<!\w){re.escape(piece.casefold())}(?!\w)", text)
    )


@pytest.mark.parametrize("name", ["demonstrations.py", "prompts.py"])
def test_no_part_of_the_set_is_in_a_prompt(name: str) -> None:
    assert pieces_in((LM / name).read_text()) == []


def test_a_part_of_the_set_would_be_found() -> None:
    assert len(list(labelled())) > 50
    source = '("What is the capital "\n    "of Italy?",), "shell"'
    assert pieces_in(source) == ["Shell", "What is the capital of Italy?"]
