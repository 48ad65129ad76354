"""How well the embedded model answers: facts, sentiments and entities of a labelled set.

Run `python -m benchmarks.quality`; it prints a Markdown table. The set is in `tests/quality/data`;
its texts appear in no prompt.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspex import AsyncClient

DATA = Path(__file__).parent.parent / "tests" / "quality" / "data"
ENTITY_TYPES = ("people", "organizations", "locations")


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the table. ``misses``: what was asked, and what came instead."""

    name: str
    figure: str
    seconds_each: float
    misses: list[str]


def counts_as_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer contains one of the accepted ones as whole words."""
    return any(re.search(rf"\b{re.escape(text)}\b", answer.lower()) for text in accepted)


def f1(
    found: Mapping[str, Sequence[str]], labelled: Mapping[str, Sequence[str]]
) -> tuple[int, int, int]:
    """Entities found under their own type: right, found in all, labelled in all."""
    right = 0
    for kind in ENTITY_TYPES:
        expected = {name.lower() for name in labelled[kind]}
        right += len(expected & {name.lower() for name in found[kind]})
    return (
        right,
        sum(len(found[kind]) for kind in ENTITY_TYPES),
        sum(len(labelled[kind]) for kind in ENTITY_TYPES),
    )


async def measure_facts(client: AsyncClient) -> Score:
    """Questions with well-known answers."""
    rows, start, misses = _load("facts.json"), time.perf_counter(), []
    for row in rows:
        answer = await client.ask(row["question"])
        if not counts_as_right(str(answer), row["accept"]):
            misses.append(f"{row['question']} -> {answer}")
    return _score("facts", f"{len(rows) - len(misses)} of {len(rows)}", rows, start, misses)


async def measure_sentiments(client: AsyncClient) -> Score:
    """Clear positive and negative texts."""
    rows, start, misses = _load("sentiments.json"), time.perf_counter(), []
    for row in rows:
        label = await client.classify(row["text"], ["positive", "negative"])
        if label != row["label"]:
            misses.append(f"{row['text']} -> {label}")
    return _score("sentiments", f"{len(rows) - len(misses)} of {len(rows)}", rows, start, misses)


async def measure_entities(client: AsyncClient) -> Score:
    """People, organizations and locations; F1 over all of them."""
    rows, start, misses = _load("entities.json"), time.perf_counter(), []
    totals = [0, 0, 0]
    for row in rows:
        found = await client.extract_entities(row["text"])
        counts = f1(found, row)
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        if not counts[0] == counts[1] == counts[2]:
            misses.append(f"{row['text']} -> {found}")
    right, found_count, labelled = totals
    figure = 2 * right / (found_count + labelled)
    return _score("entities", f"F1 {figure:.2f}", rows, start, misses)


async def main() -> None:
    """Measure, print the table, and with `--misses` what was wrong."""
    async with AsyncClient(model="embedded", workers=1) as client:
        measures = (measure_facts, measure_sentiments, measure_entities)
        scores = [await measure(client) for measure in measures]
    print("| set | result | seconds each |\n|---|---|---|")
    for score in scores:
        print(f"| {score.name} | {score.figure} | {score.seconds_each:.2f} |")
    if "--misses" in sys.argv[1:]:
        for score in scores:
            print(f"\n{score.name}:", *score.misses, sep="\n  ")


def _load(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((DATA / name).read_text())
    return rows


def _score(
    name: str, figure: str, rows: Sequence[object], start: float, misses: list[str]
) -> Score:
    seconds = (time.perf_counter() - start) / len(rows)
    return Score(name=name, figure=figure, seconds_each=seconds, misses=misses)


if __name__ == "__main__":
    asyncio.run(main())
