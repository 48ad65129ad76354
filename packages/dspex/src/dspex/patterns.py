"""The everyday questions as pure steps: which program to run, and what its output must be.

Each pattern is a generator that yields `Request`s and is sent `Prediction`s, by `drive`. It does no
IO and knows no client, so the same steps serve the asynchronous and the synchronous face, and a
test drives them without a model. Bad input raises when the first request is asked for, before
anything is sent anywhere.
"""

from __future__ import annotations

import asyncio
import keyword
import re
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dspex.errors import InputMismatch, InvalidCategory, OutputFieldMissing, ValidationFailed
from dspex.prediction import Answer, Prediction

T = TypeVar("T")

DEFAULT_ENTITY_TYPES = ("people", "organizations", "locations")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One program to run.

    Attributes:
        signature: its signature as plain data, instructions included.
        inputs: a value for each input field.
        reasoning: whether the model thinks before it answers, in an output field `reasoning`.
    """

    signature: Mapping[str, Any]
    inputs: Mapping[str, Any]
    reasoning: bool = False


Steps = Generator[Request, Prediction, T]


async def drive(
    steps: Steps[T], answer: Callable[[Request, float], Awaitable[Prediction]], budget: float
) -> T:
    """Run the requests of a pattern, all of them within `budget` seconds; `answer` is told how many
    are left.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + budget
    try:
        request = next(steps)
        while True:
            try:
                prediction = await answer(request, max(deadline - clock(), 0.001))
            except OutputFieldMissing as error:
                request = steps.throw(error)
            else:
                request = steps.send(prediction)
    except StopIteration as done:
        result: T = done.value
        return result


def ask(question: str, *, reasoning: bool = False) -> Steps[Answer]:
    """Answer a question; with `reasoning`, think first and keep the thoughts."""
    prediction = yield Request(
        signature=_signature(
            "Answer the question shortly and truthfully.", ["question"], {"answer": "str"}
        ),
        inputs={"question": _text("question", question)},
        reasoning=reasoning,
    )
    thoughts = _output(prediction, "reasoning") if reasoning else None
    return Answer(_output(prediction, "answer"), reasoning=thoughts)


def answer_with_context(question: str, context: str) -> Steps[Answer]:
    """Answer a question from a given text alone."""
    task = "Answer the question shortly, using only what the context says."
    prediction = yield Request(
        signature=_signature(task, ["context", "question"], {"answer": "str"}),
        inputs={"context": _text("context", context), "question": _text("question", question)},
    )
    return Answer(_output(prediction, "answer"))


def classify(text: str, categories: Sequence[str]) -> Steps[str]:
    """Choose one of `categories` for a text; another answer gets one more try."""
    _text("text", text)
    names = _distinct_names("categories", categories)
    given: Any = None
    cause: OutputFieldMissing | None = None
    for emphasis in ("", " Answer with one of the categories exactly, and nothing else."):
        task = f"Choose the category that fits the text best.{emphasis}"
        try:
            prediction = yield Request(
                signature=_signature(task, ["text"], {"category": {"literal": names}}),
                inputs={"text": text},
            )
            given = prediction["category"]
        except OutputFieldMissing as error:  # what DSPy makes of a value outside the categories
            cause = error
            continue
        if given in names:
            return str(given)
    raise InvalidCategory(
        f"the model chose none of the categories ({', '.join(names)}), in two tries; use a more "
        "capable model, or categories that are easier to tell apart",
        details={"given": given, "categories": names},
    ) from cause


def summarize(text: str, *, max_length: int = 150) -> Steps[str]:
    """Summarize a text in at most `max_length` words."""
    _positive("max_length", max_length)
    return (yield from _written("summary", "Summarize the text", {"text": text}, max_length))


def generate(prompt: str, *, style: str = "natural", length: int = 150) -> Steps[str]:
    """Write text for a prompt, in a style, of at most `length` words."""
    _positive("length", length)
    task = "Write what the prompt asks for, in the given style"
    inputs = {"prompt": prompt, "style": style}
    return (yield from _written("generated_text", task, inputs, length))


def extract_entities(
    text: str, *, types: Sequence[str] = DEFAULT_ENTITY_TYPES
) -> Steps[dict[str, list[str]]]:
    """Find the named entities of each type in a text, as they are written there."""
    _text("text", text)
    names = _distinct_names("types", types)
    fields = _field_names(names)
    task = (
        f"List the {_enumerated(names)} that the text names, each exactly as it is written there. "
        "A list is empty if the text names none."
    )
    prediction = yield Request(
        signature=_signature(task, ["text"], dict.fromkeys(fields.values(), "list[str]")),
        inputs={"text": text},
    )
    return {name: _found_in(text, prediction[field]) for name, field in fields.items()}


def _written(field: str, task: str, inputs: Mapping[str, str], limit: int) -> Steps[str]:
    """Have a text written, once more if it is too long, and at last cut it."""
    for name, value in inputs.items():
        _text(name, value)
    written = ""
    for emphasis in (".", f". It is very important that there are no more than {limit} words."):
        task_with_limit = f"{task}, in at most {limit} words{emphasis}"
        prediction = yield Request(
            signature=_signature(task_with_limit, list(inputs), {field: "str"}), inputs=inputs
        )
        written = _output(prediction, field)
        if len(written.split()) <= limit:
            return written
    return shorten(written, limit)


def shorten(text: str, limit: int) -> str:
    """Cut `text` to at most `limit` words: after the last whole sentence, else after a word.

    Example:
        >>> shorten("One two. Three four five.", 4)
        'One two.'
        >>> shorten("one two three", 2)
        'one two…'
    """
    kept = " ".join(text.split()[:limit])
    ends = [match.end() for match in re.finditer(r"[.!?][\"')\]]*(?=\s|$)", kept)]
    return kept[: ends[-1]] if ends else kept.rstrip(",;:-") + "…"


def _output(prediction: Prediction, field: str) -> str:
    """Return the text of an output field; an empty one is as good as missing."""
    text = str(prediction[field]).strip()
    if not text:
        raise OutputFieldMissing(
            f"the model left the output field {field!r} empty; ask again, or use a larger model",
            details={"field": field, "available": list(prediction)},
        )
    return text


def _found_in(text: str, given: Iterable[Any]) -> list[str]:
    """Keep what occurs in the text, once each: models add names they only associate with it."""
    haystack = _folded(text)
    found: dict[str, str] = {}
    for item in given:
        name = " ".join(str(item).split()).strip(" \"'“”‘’.,;:")
        key = _folded(name)
        if key and re.search(rf"(?<!\w){re.escape(key)}(?!\w)", haystack):
            found.setdefault(key, name)
    return list(found.values())


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _signature(
    instructions: str, inputs: Sequence[str], outputs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Describe a signature as plain data, which needs no quoting of the caller's words."""
    return {
        "instructions": instructions,
        "inputs": [{"name": name} for name in inputs],
        "outputs": [{"name": name, "type": kind} for name, kind in outputs.items()],
    }


# Names a field of a DSPy signature can't have: the input's, and attributes of the class itself.
_RESERVED = frozenset(
    "text construct copy dict fields from_orm instructions json parse_file parse_obj parse_raw "
    "reasoning schema schema_json signature update_forward_refs validate".split()
)


def _field_names(names: Sequence[str]) -> dict[str, str]:
    """Give each entity type an output field: its own name where that is a usable one."""
    fields: dict[str, str] = {}
    taken = set(_RESERVED)
    for name in names:
        field = re.sub(r"\W+", "_", name.casefold(), flags=re.ASCII).strip("_") or "entities"
        if field[0].isdigit() or keyword.iskeyword(field) or field.startswith("model_"):
            field = f"entities_{field}"
        base, number = field, 2
        while field in taken:
            field, number = f"{base}_{number}", number + 1
        taken.add(field)
        fields[name] = field
    return fields


def _enumerated(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputMismatch(f"{name} must be a str, not {type(value).__name__}")
    if not value.strip():
        raise InputMismatch(f"{name} is empty; pass some text")
    return value


def _positive(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValidationFailed(f"{name} is a number of words, at least 1; it was {value!r}")


def _distinct_names(argument: str, names: object) -> list[str]:
    """Check a list of names given by the caller: strings, not blank, no two alike."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InputMismatch(
            f"{argument} must be a list of str, as in {argument}=['a', 'b']; it was {names!r}"
        )
    listed = list(names)
    if not listed:
        raise InputMismatch(f"{argument} is empty; give at least one")
    for name in listed:
        _text(f"each of the {argument}", name)
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise InputMismatch(f"{argument} has the same name more than once: {', '.join(twice)}")
    return listed
