"""The DSPy adapter for small local models. Worker side: it imports dspy.

DSPy's own adapters explain a format and rely on a model that follows explanations. A model of 135
million weights continues patterns instead. So this adapter shows worked examples, fills one output
field after the other, and uses what only a local engine offers: the log-probabilities of a closed
set, grammars for numbers and JSON, and the names that the text itself holds.

Each request carries these wishes in ``Config.extensions["native"]``
(:mod:`snakepit_grpc_bridge.lm.native_format`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dspy.adapters.base import Adapter
from dspy.adapters.chat_adapter import ChatAdapter
from dspy.adapters.types import History
from dspy.adapters.utils import format_field_value
from dspy.lm15 import Config, Message, Request, Response
from dspy.utils.exceptions import AdapterParseError
from pydantic import TypeAdapter, ValidationError

from snakepit_grpc_bridge.lm import grammars
from snakepit_grpc_bridge.lm.demonstrations import ENTITIES, ENTITY_LABELS, MORE_ENTITIES
from snakepit_grpc_bridge.lm.fields import FieldKind, OutputField, describe
from snakepit_grpc_bridge.lm.grammars import bounded
from snakepit_grpc_bridge.lm.names import names_in
from snakepit_grpc_bridge.lm.prompts import (
    CONTENT_FREE,
    REASONING,
    Layout,
    choose_layout,
    entity_labels,
    entity_prompt,
)

__all__ = ["EmbeddedAdapter"]

#: Tokens an answer may have when neither the program nor the LM says.
_TOKENS = {"long": 256, "reasoning": 96, "text": 128, "list": 64, "json": 256, "number": 24}
#: Keeps long texts from going round in circles; short answers are better without.
_REPEAT_PENALTY = 1.15
_NOTHING = frozenset({"", "none", "n/a", "nothing", "-"})
_SAMPLING = ("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ask:
    """One thing to ask the engine: how to go on after ``prompt``."""

    prompt: str
    max_tokens: int
    native: Mapping[str, Any]
    stop: tuple[str, ...] = ()
    #: Whether the program's temperature applies: a closed set and a number have one best answer.
    free: bool = False


_Steps = Generator[_Ask, Response, dict[str, str]]


class EmbeddedAdapter(Adapter):  # type: ignore[misc]  # dspy is untyped
    """Lets small local models fill any signature; used with ``model="embedded"`` by itself.

    The program's own demonstrations replace the built-in ones. ``temperature``, ``max_tokens``,
    ``seed``, ``n`` and others given to a module apply as usual. With an LM that is not served by
    the native engine (a program may set one with ``dspy.context``) it hands over to DSPy's
    ``ChatAdapter``.

    Raises:
        AdapterParseError: from a call, when the answer does not fit a field; the message names it.

    Example::

        with dspy.context(lm=lm, adapter=EmbeddedAdapter()):
            dspy.Predict("question -> answer")(question="What is the capital of France?")
    """

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Fill the signature's output fields; one mapping for each of ``n`` candidates."""
        if not _is_native(lm):
            return list(ChatAdapter()(lm, lm_kwargs, signature, demos, inputs))
        results = []
        for options in _candidates(lm, lm_kwargs):
            steps = self._fill(signature, demos, inputs)
            try:
                ask = next(steps)
                while True:
                    ask = steps.send(lm(_request(lm.model, ask, options)))
            except StopIteration as done:
                results.append(self.parse(signature, json.dumps(done.value)))
        return results

    async def acall(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: list[dict[str, Any]],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """As ``__call__``, for async programs."""
        if not _is_native(lm):
            return list(await ChatAdapter().acall(lm, lm_kwargs, signature, demos, inputs))
        results = []
        for options in _candidates(lm, lm_kwargs):
            steps = self._fill(signature, demos, inputs)
            try:
                ask = next(steps)
                while True:
                    ask = steps.send(await lm.acall(_request(lm.model, ask, options)))
            except StopIteration as done:
                results.append(self.parse(signature, json.dumps(done.value)))
        return results

    def format(
        self, signature: Any, demos: list[dict[str, Any]], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the prompt for the first output field, as one message."""
        outputs = _outputs(signature)
        layout = _layout(signature, outputs, demos, inputs)
        return [{"role": "user", "content": layout.prompt(outputs[0].name)}]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """Turn the fields' texts (a JSON object by field name) into values of their types."""
        texts = json.loads(completion)
        values: dict[str, Any] = {}
        for item in _outputs(signature):
            text = str(texts.get(item.name, "")).strip()
            try:
                values[item.name] = _value(item, text)
            except (ValueError, ValidationError) as error:
                raise AdapterParseError(
                    adapter_name=type(self).__name__,
                    signature=signature,
                    lm_response=text,
                    message=f"The model's answer does not fit the output field {item.name!r}: "
                    f"{error}",
                    parsed_result=values,
                ) from error
        return values

    # --- what is asked, and in which order: no IO ----------------------------------------------

    def _fill(self, signature: Any, demos: list[dict[str, Any]], inputs: dict[str, Any]) -> _Steps:
        """Yield what to ask and take the answers; return the text of each field."""
        outputs = _outputs(signature)
        layout = _layout(signature, outputs, demos, inputs)
        labels = {} if demos else entity_labels(outputs)
        named = yield from _name_entities(layout, labels) if labels else _no_entities()
        texts: dict[str, str] = {}
        for item in outputs:
            if item.name in labels:
                label = labels[item.name]
                text = ", ".join(name for name, what in named if what == label)
            else:
                text = yield from _fill_field(layout, item)
            layout.fill(item.name, text)
            texts[item.name] = text
        return texts


def _is_native(lm: Any) -> bool:
    return bool(getattr(getattr(lm, "engine", None), "native", False))


def _fill_field(layout: Layout, item: OutputField) -> Generator[_Ask, Response, str]:
    prompt = layout.prompt(item.name)
    if item.kind is FieldKind.CHOICE:
        response = yield _choice(layout, item)
        label: str = item.choices[response.provider_data["choice"]][0]
        return label
    if item.kind in (FieldKind.INTEGER, FieldKind.NUMBER):
        grammar = grammars.INTEGER if item.kind is FieldKind.INTEGER else grammars.NUMBER
        ask = _Ask(prompt=prompt, max_tokens=_TOKENS["number"], native={"grammar": grammar})
    elif item.kind is FieldKind.JSON:
        schema = bounded(TypeAdapter(item.annotation).json_schema())
        ask = _Ask(
            prompt=prompt + " ", max_tokens=_TOKENS["json"], native={"schema": schema}, free=True
        )
    else:
        ask = _writing(layout, item, prompt)
    response = yield ask
    return str(response.text or "").strip()


def _choice(layout: Layout, item: OutputField) -> _Ask:
    """Compare the labels' log-probabilities, less what the model thinks of them without a text."""
    baselines = [layout.prompt(item.name, content=content) for content in CONTENT_FREE]
    score = {"choices": _continuations(item), "baselines": baselines}
    return _Ask(prompt=layout.prompt(item.name), max_tokens=1, native={"score": score})


def _continuations(item: OutputField) -> list[str]:
    """Return what is compared: the labels, with their end where one is the start of another."""
    labels = [f" {label}" for label, _ in item.choices]
    nested = any(a != b and b.startswith(a) for a in labels for b in labels)
    return [f"{label}\n" for label in labels] if nested else labels


def _writing(layout: Layout, item: OutputField, prompt: str) -> _Ask:
    if item.kind is FieldKind.TEXTS:
        return _Ask(prompt=prompt, max_tokens=_TOKENS["list"], native={}, stop=("\n",), free=True)
    if layout.long_text and item.name != REASONING:
        return _Ask(
            prompt=prompt,
            max_tokens=_TOKENS["long"],
            native={"repeat_penalty": _REPEAT_PENALTY},
            stop=("\n\n", layout.next_input),
            free=True,
        )
    size = "reasoning" if item.name == REASONING else "text"
    return _Ask(
        prompt=prompt,
        max_tokens=_TOKENS[size],
        native={"grammar": grammars.LINE},
        free=True,
    )


def _no_entities() -> Generator[_Ask, Response, list[tuple[str, str]]]:
    yield from ()
    return []


def _name_entities(
    layout: Layout, labels: Mapping[str, str]
) -> Generator[_Ask, Response, list[tuple[str, str]]]:
    """Ask twice for each name in the inputs what it is; return the names with their labels.

    The first time each name by itself, the second time seeing what was said of the names before.
    """
    text = "\n".join(value for _, value in layout.inputs)
    wanted = list(dict.fromkeys([*labels.values(), *ENTITY_LABELS]))
    names = names_in(text)
    alone = []
    for name in names:
        response = yield _label(entity_prompt(ENTITIES, text, [], name), wanted)
        alone.append(_shares(response))
    named: list[tuple[str, str]] = []
    for name, before in zip(names, alone, strict=True):
        response = yield _label(entity_prompt(MORE_ENTITIES, text, named, name), wanted)
        shares = [a + b for a, b in zip(before, _shares(response), strict=True)]
        named.append((name, wanted[shares.index(max(shares))]))
    return named


def _label(prompt: str, labels: list[str]) -> _Ask:
    return _Ask(prompt=prompt, max_tokens=1, native={"score": {"choices": labels}})


def _shares(response: Response) -> list[float]:
    """Return the scores as log-probabilities among the choices alone."""
    scores = [float(score) for score in response.provider_data["scores"]]
    total = math.log(math.fsum(map(math.exp, scores)))
    return [score - total for score in scores]


# --- between DSPy and the plan -------------------------------------------------------------------


def _outputs(signature: Any) -> list[OutputField]:
    return [describe(name, info.annotation) for name, info in signature.output_fields.items()]


def _layout(
    signature: Any,
    outputs: Sequence[OutputField],
    demos: Sequence[Mapping[str, Any]],
    inputs: Mapping[str, Any],
) -> Layout:
    histories = [
        name for name, info in signature.input_fields.items() if info.annotation is History
    ]
    turns = [turn for name in histories if name in inputs for turn in inputs[name].messages]
    listed = {frozenset(label for label, _ in item.choices) for item in outputs if item.choices}
    shown = {}
    for name, info in signature.input_fields.items():
        value = inputs.get(name)
        # The choices themselves are not content, they are what the scores compare.
        listing = isinstance(value, list) and frozenset(map(str, value)) in listed
        if value is not None and name not in histories and not listing:
            shown[name] = str(format_field_value(info, value))
    return choose_layout(
        shown,
        outputs,
        instructions=str(signature.instructions),
        given=[
            _given(signature, demo) for demo in [*demos, *turns] if _has_output(signature, demo)
        ],
    )


def _has_output(signature: Any, demo: Mapping[str, Any]) -> bool:
    return any(demo.get(name) is not None for name in signature.output_fields)


def _given(signature: Any, demo: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    inputs = {
        name: str(format_field_value(info, demo[name]))
        for name, info in signature.input_fields.items()
        if demo.get(name) is not None and info.annotation is not History
    }
    outputs = {}
    for item in _outputs(signature):
        if demo.get(item.name) is not None:
            outputs[item.name] = _text(item, demo[item.name], signature.output_fields[item.name])
    return inputs, outputs


def _text(item: OutputField, value: Any, info: Any) -> str:
    """Write a value as the model is to write it."""
    if item.kind is FieldKind.CHOICE:
        return next((text for text, known in item.choices if known == value), str(value))
    if item.kind is FieldKind.TEXTS and isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(format_field_value(info, value))


def _value(item: OutputField, text: str) -> Any:
    if item.optional and text.casefold().rstrip(".") in _NOTHING:
        return None
    if item.kind is FieldKind.CHOICE:
        return next(value for label, value in item.choices if label == text)
    if item.kind is FieldKind.TEXTS:
        if text.casefold().rstrip(".") in _NOTHING:
            return []
        return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not text:
        raise ValueError("the model wrote nothing")
    if item.kind is FieldKind.INTEGER:
        return int(text)
    if item.kind is FieldKind.NUMBER:
        return float(text)
    if item.kind is FieldKind.JSON:
        return TypeAdapter(item.annotation).validate_json(text)
    return (
        text
        if item.annotation in (str, Any)
        else TypeAdapter(item.annotation).validate_python(text)
    )


def _candidates(lm: Any, lm_kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sampling options of each of the ``n`` answers that are asked for."""
    merged = {**lm.kwargs, **lm_kwargs}
    options = {name: merged[name] for name in _SAMPLING if merged.get(name) is not None}
    if merged.get("max_tokens") is not None:
        options["max_tokens"] = merged["max_tokens"]
    count = merged.get("n") or 1
    seed = options.get("seed")
    return [options if seed is None else options | {"seed": seed + n} for n in range(count)]


def _request(model: str, ask: _Ask, options: Mapping[str, Any]) -> Request:
    own = dict(options) if ask.free else {}
    own.setdefault("max_tokens", ask.max_tokens)
    return Request(
        model=model,
        messages=(Message.user(ask.prompt),),
        config=Config(stop=ask.stop, extensions={"native": {"plain": True, **ask.native}}, **own),
    )
