"""Prompts for small models: which examples, and how a task is laid out. Pure; knows no DSPy.

A prompt is a number of blocks of lines ``Label: value`` with an empty line between them. The last
block holds the inputs and ends with the label of the field that the model is to fill. Fields are
filled one after the other, each seeing those before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from snakepit_grpc_bridge.lm import demonstrations as demos
from snakepit_grpc_bridge.lm.demonstrations import EntityExamples, Example
from snakepit_grpc_bridge.lm.fields import FieldKind, OutputField, describe, label_of
from snakepit_grpc_bridge.lm.names import ENTITY_ALIASES

__all__ = [
    "CONTENT_FREE",
    "REASONING",
    "Layout",
    "choose_layout",
    "entity_labels",
    "entity_prompt",
    "questions_head",
]

REASONING = "reasoning"
#: Inputs without content, for measuring how much a model prefers a label whatever the text says.
CONTENT_FREE = ("N/A", "")

_SUMMARIES = re.compile(r"summar|tl_?dr|headline|abstract|gist")
_CONTEXT = re.compile(r"context|passage|document|source|paragraph|article|facts|notes")
_QUESTION = re.compile(r"question|query")
_PROMPT = re.compile(r"prompt|instruction|request|task")
_LONG = re.compile(
    r"text|story|essay|poem|e?mail|letter|article|report|content|code|draft|post|script|plan|"
    r"explanation|description"
)
_DEFAULT_INSTRUCTIONS = re.compile(r"Given the fields .*, produce the fields .*\.\s*\Z", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the prompts of one request are laid out.

    Attributes:
        head: the blocks before the request's own.
        inputs: the request's inputs, as (label, text).
        long_text: whether an answer may have several lines.
    """

    head: str
    inputs: tuple[tuple[str, str], ...]
    long_text: bool = False
    filled: list[tuple[str, str]] = field(default_factory=list)

    def prompt(self, name: str, *, content: str | None = None) -> str:
        """Return the prompt for the field ``name``; ``content`` replaces the inputs' texts."""
        lines = [(label, text if content is None else content) for label, text in self.inputs]
        return f"{self.head}{_lines([*lines, *self.filled])}{label_of(name)}:"

    def fill(self, name: str, text: str) -> None:
        """Take what was written for a field; later fields see it."""
        self.filled.append((label_of(name), text))

    @property
    def next_input(self) -> str:
        """The line head with which a model would begin another block."""
        return f"\n{self.inputs[0][0]}:" if self.inputs else "\n\n"


def choose_layout(
    inputs: Mapping[str, str],
    outputs: Sequence[OutputField],
    *,
    instructions: str = "",
    given: Sequence[tuple[Mapping[str, str], Mapping[str, str]]] = (),
) -> Layout:
    """Choose the examples for a task.

    Args:
        inputs: the request's inputs by name, as text.
        outputs: the fields to fill.
        instructions: the signature's instructions. They head the prompt of a task that has no
            examples of its own; with examples they make small models worse, and are left out.
        given: the program's own examples, as (inputs, outputs). They replace the built-in ones.
    """
    lines = tuple((label_of(name), _one_block(text)) for name, text in inputs.items())
    long_text = any(
        item.kind is FieldKind.TEXT and item.name != REASONING and _LONG.search(item.name)
        for item in outputs
    )
    if given:
        head = _instructions(instructions) + "".join(_block(*pair) for pair in given)
    else:
        head = _built_in(inputs, outputs) or _instructions(instructions)
    return Layout(head=head, inputs=lines, long_text=long_text)


def _instructions(text: str) -> str:
    text = _one_block(text)
    return f"{text}\n\n" if text and not _DEFAULT_INSTRUCTIONS.match(text) else ""


def _block(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    pairs = [*inputs.items(), *outputs.items()]
    return _lines([(label_of(name), _one_block(text)) for name, text in pairs]) + "\n"


def _lines(pairs: Sequence[tuple[str, str]]) -> str:
    return "".join(f"{label}: {text}".rstrip() + "\n" for label, text in pairs)


def _one_block(text: str) -> str:
    """An empty line would end the block."""
    return re.sub(r"\n\s*\n", "\n", text.strip())


def questions_head() -> str:
    """Return how the prompts of plain questions begin, the most usual ones."""
    return _built_in({"question": ""}, [describe("answer", str)])


# --- built-in examples ---------------------------------------------------------------------------


def _built_in(inputs: Mapping[str, str], outputs: Sequence[OutputField]) -> str:
    answers = [item for item in outputs if item.name != REASONING]
    if len(answers) != 1 or not inputs:
        return ""
    found = _examples(list(inputs), answers[0])
    if found is None:
        return ""
    names, examples = found
    blocks = []
    for example in examples:
        values = dict(zip(names, example.given, strict=True))
        # Inputs that the examples don't speak of are the same everywhere.
        shown = {name: values.get(name, text) for name, text in inputs.items()}
        results = {
            item.name: example.reasoning if item.name == REASONING else example.answer
            for item in outputs
        }
        blocks.append(_block(shown, results))
    return "".join(blocks)


def _examples(
    names: list[str], answer: OutputField
) -> tuple[tuple[str, ...], Sequence[Example]] | None:
    """Return the inputs that the examples fill, and the examples; None if none fit."""
    if answer.kind is FieldKind.CHOICE:
        # The examples' labels would say nothing about yes and no.
        if len(names) != 1 or answer.annotation is bool:
            return None
        return (names[0],), _choice_examples(answer)
    if answer.kind in (FieldKind.INTEGER, FieldKind.NUMBER):
        return ((names[0],), demos.ANSWERS) if len(names) == 1 and _asks(names, answer) else None
    if answer.kind is not FieldKind.TEXT:
        return None
    return _text_examples(names, answer)


def _choice_examples(answer: OutputField) -> Sequence[Example]:
    labels = {text.casefold() for text, _ in answer.choices}
    return demos.FEELINGS if labels & {"positive", "negative"} else demos.TOPICS


def _asks(names: list[str], answer: OutputField) -> bool:
    return bool(_QUESTION.search(names[0])) or "answer" in answer.name


def _text_examples(
    names: list[str], answer: OutputField
) -> tuple[tuple[str, ...], Sequence[Example]] | None:
    prompts = [name for name in names if _PROMPT.search(name)]
    if prompts:
        return (prompts[0],), demos.PROMPTS
    if len(names) == 1:
        if _SUMMARIES.search(answer.name):
            return (names[0],), demos.SUMMARIES
        return ((names[0],), demos.ANSWERS) if _asks(names, answer) else None
    contexts = [name for name in names if _CONTEXT.search(name)]
    questions = [name for name in names if _QUESTION.search(name)]
    if len(names) == 2 and contexts and questions:
        return (contexts[0], questions[0]), demos.CONTEXTS
    return None


# --- entities ------------------------------------------------------------------------------------


def entity_labels(outputs: Sequence[OutputField]) -> dict[str, str]:
    """Return the entity label of each field that asks for names of a usual kind.

    Example:
        >>> from snakepit_grpc_bridge.lm.fields import describe
        >>> entity_labels([describe("people", list[str]), describe("steps", list[str])])
        {'people': 'person'}
    """
    found: dict[str, str] = {}
    for item in outputs:
        if item.kind is FieldKind.TEXTS and item.name.casefold() in ENTITY_ALIASES:
            label = ENTITY_ALIASES[item.name.casefold()]
            # Two fields of one kind ("cities" and "countries") need labels of their own.
            found[item.name] = _singular(item.name) if label in found.values() else label
    return found


def _singular(name: str) -> str:
    name = name.replace("_", " ").casefold()
    return name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s")


def entity_prompt(
    examples: EntityExamples, text: str, named: Sequence[tuple[str, str]], name: str
) -> str:
    """Return the prompt that asks what ``name`` is, after the names that are known already."""
    blocks = [
        (sample, [(span, demos.ENTITY_LABELS[index]) for span, index in spans])
        for sample, spans in examples
    ]
    blocks.append((_one_block(text), list(named)))
    shown = "\n".join(
        f"Text: {sample}\n" + "".join(f"- {span} ({label})\n" for span, label in spans)
        for sample, spans in blocks
    )
    return f"{shown}- {name} ("
