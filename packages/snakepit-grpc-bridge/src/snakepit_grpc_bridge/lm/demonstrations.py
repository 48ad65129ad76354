"""The worked examples that show a small model what is wanted. Data only.

A model of 135 million weights does not follow instructions; it continues patterns. So each kind of
task has a few examples, written for this purpose and in no relation to any labelled set the
project measures itself with. They are frozen: a change here means measuring again.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "ANSWERS",
    "CONTEXTS",
    "ENTITIES",
    "ENTITY_LABELS",
    "FEELINGS",
    "MORE_ENTITIES",
    "PROMPTS",
    "SUMMARIES",
    "TOPICS",
    "EntityExamples",
    "Example",
]


@dataclass(frozen=True, slots=True)
class Example:
    """One worked example: what is given, the answer, and how one gets there."""

    given: tuple[str, ...]
    answer: str
    reasoning: str = ""


ANSWERS = (
    Example(
        ("Which language is spoken in Brazil?",),
        "Portuguese",
        "The language spoken in Brazil is Portuguese.",
    ),
    Example(
        ("What is the hardest natural material?",),
        "Diamond",
        "The hardest natural material is diamond.",
    ),
    Example(
        ("Who invented the telephone?",),
        "Alexander Graham Bell",
        "The telephone was invented by Alexander Graham Bell.",
    ),
    Example(("How many wheels does a bicycle have?",), "2", "A bicycle has 2 wheels."),
    Example(("What is the capital of Austria?",), "Vienna", "The capital of Austria is Vienna."),
)

CONTEXTS = (
    Example(
        ("The store is open from 9 to 5. It is closed on Sundays.", "When is the store closed?"),
        "On Sundays",
        "The text says that the store is closed on Sundays.",
    ),
    Example(
        (
            "Lena grew up in Norway. She became a pilot in 2010 and now lives in Peru.",
            "What is Lena's job?",
        ),
        "Pilot",
        "The text says that Lena became a pilot.",
    ),
    Example(
        ("The oak is 300 years old and 20 metres tall.", "How old is the oak?"),
        "300 years",
        "The text says that the oak is 300 years old.",
    ),
)

SUMMARIES = (
    Example(
        (
            "Our town library will close for repairs in June. Readers can return books at the town "
            "hall, and the reading room moves to the school until August.",
        ),
        "The library closes in June for repairs, and its services move to the town hall and the "
        "school until August.",
        "The text is about repairs of the library.",
    ),
    Example(
        (
            "Scientists tested a new battery that charges in five minutes. It lasts longer than "
            "today's batteries, but it is still expensive to make.",
        ),
        "A new battery charges in five minutes and lasts longer, but it is still expensive.",
        "The text is about a new battery.",
    ),
)

PROMPTS = (
    Example(
        ("Write one sentence about the sea.",),
        "The sea glitters in the morning sun, and the waves roll slowly to the shore.",
        "The sea has waves and light.",
    ),
    Example(
        ("Give me a tip for better sleep.",),
        "Go to bed at the same time every evening and keep your bedroom dark and quiet.",
        "A quiet, dark room and a regular time help.",
    ),
)

#: For choosing among labels: two topics, in no relation to the labels that are asked for.
TOPICS = (
    Example(("The recipe needs two eggs and a cup of flour.",), "food", "It is about cooking."),
    Example(("It will rain all week with strong wind.",), "weather", "It is about rain and wind."),
)

#: For choosing between positive and negative, mixed with the topics: alternating kinds keep the
#: model from simply repeating one of the labels.
FEELINGS = (
    TOPICS[0],
    Example(("The concert was superb and I enjoyed every minute.",), "positive", "It was enjoyed."),
    TOPICS[1],
    Example(
        ("The printer jams all the time and the ink is too expensive.",),
        "negative",
        "It is a complaint.",
    ),
)

ENTITY_LABELS = ("person", "organization", "location", "other")

#: For saying what each name in a text is: the text, then (name, index into ENTITY_LABELS). Two
#: sets of examples err in different places, so both are asked and their scores added.
EntityExamples = tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
ENTITIES: EntityExamples = (
    (
        "Clara Stone of Philips flew from Vienna to Oslo.",
        (("Clara Stone", 0), ("Philips", 1), ("Vienna", 2), ("Oslo", 2)),
    ),
    (
        "Last week the World Bank lent money to Ghana, said John Miller.",
        (("World Bank", 1), ("Ghana", 2), ("John Miller", 0)),
    ),
)
MORE_ENTITIES: EntityExamples = (
    (
        "Anna Berg and Paul Young left the World Bank for Philips in Vienna.",
        (("Anna Berg", 0), ("Paul Young", 0), ("World Bank", 1), ("Philips", 1), ("Vienna", 2)),
    ),
    (
        "Toronto and Oslo signed a treaty, said Lisa Chen of Oxford University.",
        (("Toronto", 2), ("Oslo", 2), ("Lisa Chen", 0), ("Oxford University", 1)),
    ),
)
