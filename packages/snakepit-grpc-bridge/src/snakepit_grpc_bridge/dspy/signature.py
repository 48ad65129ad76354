"""Reading DSPy signatures without DSPy, so that a wrong one fails at the call site.

A signature is text (``"question, context: list[str] -> answer: str"``) or plain data::

    {
        "instructions": "Answer from the context.",
        "inputs": [{"name": "question"}, {"name": "context", "type": "list[str]"}],
        "outputs": [{"name": "mood", "type": {"literal": ["good", "bad"]}, "desc": "the tone"}],
    }

Types are a closed set on purpose: DSPy itself imports whatever module a type's name mentions. The
module does no IO and keeps no state.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from snakepit_grpc_bridge.dspy.input_types import elements_of, fits
from snakepit_grpc_bridge.errors import InputMismatch, SignatureInvalid, did_you_mean

__all__ = ["Field", "SignatureSpec", "parse_signature"]

#: Far above any useful signature; keeps a mistaken text from being parsed for long.
MAX_LENGTH = 20_000

PLAIN_TYPES = frozenset(
    {"str", "int", "float", "bool", "bytes", "complex", "None", "Any"}
    | {"list", "tuple", "dict", "set", "frozenset"}
)
#: How many arguments a generic type takes, (least, most).
GENERIC_TYPES: Mapping[str, tuple[int, int | None]] = {
    "list": (1, 1),
    "set": (1, 1),
    "frozenset": (1, 1),
    "dict": (2, 2),
    "tuple": (1, None),
    "Optional": (1, 1),
    "Union": (2, None),
    "Literal": (1, None),
}

#: Attributes of dspy.Signature that a field of the same name would replace, or clash with.
_RESERVED = frozenset({"fields", "instructions", "signature", "model_config"})
_RESERVED_PREFIXES = ("_", "model_dump", "model_validate")
#: Keyword arguments that dspy.Predict takes for itself.
_RESERVED_INPUTS = frozenset({"config", "demos", "lm", "new_signature", "_trace"})
_EXAMPLE = "a signature looks like 'question, context: list[str] -> answer: str'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One input or output field.

    Attributes:
        name: its name.
        type: its type as text; None if the signature names none, which means text.
        desc: what it holds, for the model.
    """

    name: str
    type: str | None = None
    desc: str | None = None

    @property
    def optional(self) -> bool:
        """Whether it may be left out: its type allows None."""
        return self.type is not None and _allows_none(_type_node(self.type, self.name))

    def accepts(self, value: object) -> bool:
        """Whether a value has the type, if the signature names one; else every value will do."""
        return self.type is None or fits(_type_node(self.type, self.name), value)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureSpec:
    """A signature that is known to be well formed."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]
    instructions: str | None = None

    @property
    def text(self) -> str:
        """The signature as text, without instructions and descriptions."""
        sides = (self.inputs, self.outputs)
        return " -> ".join(", ".join(_field_text(field) for field in side) for side in sides)

    def to_plain(self) -> dict[str, Any]:
        """Return the plain-data form; ``parse_signature`` reads it back."""
        return {
            "instructions": self.instructions,
            "inputs": [_plain_field(field) for field in self.inputs],
            "outputs": [_plain_field(field) for field in self.outputs],
        }

    def check_inputs(self, inputs: object) -> dict[str, Any]:
        """Return ``inputs`` as a dict if they are exactly the input fields, each of its type.

        Fields whose type allows None may be missing. Fields without a type take any value.

        Raises:
            InputMismatch: something is missing, unexpected or of another type, or ``inputs`` is no
                mapping.
        """
        if not isinstance(inputs, Mapping):
            raise InputMismatch(
                f"inputs must be a mapping of field names to values, not a {type(inputs).__name__}",
                details={"missing": [field.name for field in self.inputs], "unexpected": []},
            )
        names = {field.name for field in self.inputs}
        missing = [
            field.name for field in self.inputs if field.name not in inputs and not field.optional
        ]
        unexpected = [str(name) for name in inputs if name not in names]
        if missing or unexpected:
            raise InputMismatch.of(self.text, missing, unexpected)
        for field in self.inputs:
            if field.name in inputs and not field.accepts(inputs[field.name]):
                raise InputMismatch.of_type(field.name, str(field.type), inputs[field.name])
        return dict(inputs)


def parse_signature(
    signature: str | Mapping[str, Any] | SignatureSpec, instructions: str | None = None
) -> SignatureSpec:
    """Return the checked signature; ``instructions`` win over those it has itself.

    Raises:
        SignatureInvalid: it does not parse; the message says what is wrong and where.

    Example:
        >>> [field.name for field in parse_signature("question -> answer: str").outputs]
        ['answer']
    """
    if isinstance(signature, SignatureSpec):
        inputs, outputs, own = signature.inputs, signature.outputs, signature.instructions
    elif isinstance(signature, str):
        inputs, outputs, own = *_parse_text(signature), None
    elif isinstance(signature, Mapping):
        inputs, outputs, own = _parse_plain(signature)
    else:
        _fail(signature, f"it is a {type(signature).__name__}, neither text nor a mapping")
    chosen = own if instructions is None else instructions
    if chosen is not None and not isinstance(chosen, str):
        _fail(signature, f"its instructions are a {type(chosen).__name__}, not text")
    return SignatureSpec(inputs=inputs, outputs=outputs, instructions=chosen)


# --- text ----------------------------------------------------------------------------------------


def _parse_text(text: str) -> tuple[tuple[Field, ...], tuple[Field, ...]]:
    if len(text) > MAX_LENGTH:
        _fail(text[:60] + "...", f"it has {len(text)} characters, the limit is {MAX_LENGTH}")
    if not text.strip():
        _fail(text, "it is empty")
    sides = list(_split(text, "->"))
    if len(sides) != 2:
        how_many = "no '->'" if len(sides) == 1 else f"{len(sides) - 1} times '->'"
        _fail(text, f"it has {how_many} between inputs and outputs; write it once")
    inputs, outputs = (
        _parse_side(text, side, which)
        for side, which in zip(sides, ("input", "output"), strict=True)
    )
    _check_names(text, inputs, outputs)
    return inputs, outputs


def _parse_side(text: str, side: str, which: str) -> tuple[Field, ...]:
    if not side.strip():
        _fail(text, f"there is no {which} field {'before' if which == 'input' else 'after'} '->'")
    fields = []
    for part in _split(side, ","):
        if not part.strip():
            _fail(text, f"there is an empty {which} field; look for a comma too many")
        name, *rest = _split(part, ":")
        if len(rest) > 1:
            _fail(text, f"the field {part.strip()!r} has more than one ':'")
        type_text = rest[0].strip() if rest else None
        if type_text == "":
            _fail(text, f"the field {name.strip()!r} has no type after its ':'")
        fields.append(_field(text, name.strip(), type_text, None))
    return tuple(fields)


def _split(text: str, separator: str) -> Iterator[str]:
    """Split at separators that are in no bracket and no quotes."""
    start = index = depth = 0
    quote = ""
    while index < len(text):
        char = text[index]
        if quote:
            index += char == "\\"
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif depth == 0 and text.startswith(separator, index):
            yield text[start:index]
            index += len(separator) - 1
            start = index + 1
        else:
            depth = max(0, depth + (char in "[(") - (char in "])"))
        index += 1
    yield text[start:]


# --- plain data ----------------------------------------------------------------------------------


def _parse_plain(
    data: Mapping[str, Any],
) -> tuple[tuple[Field, ...], tuple[Field, ...], str | None]:
    known = ("instructions", "inputs", "outputs")
    for key in data:
        if key not in known:
            hint = did_you_mean(str(key), known)
            _fail(dict(data), f"it has the unknown key {key!r}{hint} (known: {', '.join(known)})")
    inputs, outputs = (_plain_side(data, side) for side in ("inputs", "outputs"))
    _check_names(dict(data), inputs, outputs)
    return inputs, outputs, data.get("instructions")


def _plain_side(data: Mapping[str, Any], side: str) -> tuple[Field, ...]:
    described = data.get(side)
    if isinstance(described, str) or not isinstance(described, Sequence) or not described:
        _fail(dict(data), f"{side!r} must be a list of at least one field")
    fields = []
    for item in described:
        if isinstance(item, str):
            item = {"name": item}
        if not isinstance(item, Mapping) or not set(item) <= {"name", "type", "desc"}:
            _fail(dict(data), f"a field is a mapping of name, type and desc, not {item!r}")
        fields.append(
            _field(dict(data), item.get("name"), _type_text(item.get("type")), item.get("desc"))
        )
    return tuple(fields)


def _type_text(described: object) -> Any:
    if isinstance(described, Mapping):
        choices = described.get("literal")
        if set(described) == {"literal"} and isinstance(choices, (list, tuple)) and choices:
            return f"Literal[{', '.join(map(repr, choices))}]"
        return repr(dict(described))
    return described


def _plain_field(field: Field) -> dict[str, Any]:
    return {"name": field.name, "type": field.type, "desc": field.desc}


def _field_text(field: Field) -> str:
    return field.name if field.type is None else f"{field.name}: {field.type}"


# --- fields and types ----------------------------------------------------------------------------


def _field(where: object, name: object, type_text: object, desc: object) -> Field:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        _fail(where, f"{name!r} is no field name; use letters, digits and '_', as in 'max_price'")
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        _fail(where, f"the field name {name!r} is reserved by DSPy; choose another")
    if desc is not None and not isinstance(desc, str):
        _fail(where, f"the desc of {name!r} is a {type(desc).__name__}, not text")
    if type_text is None:
        return Field(name=name, desc=desc)
    if not isinstance(type_text, str):
        _fail(where, f"the type of {name!r} is a {type(type_text).__name__}, not text")
    _check_type(where, name, _type_node(type_text, name, where))
    return Field(name=name, type=type_text, desc=desc)


def _type_node(text: str, name: str, where: object = None) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        _fail(where or text, f"the type of {name!r}, {_clip(text)!r}, does not parse", error)


def _check_type(where: object, name: str, node: ast.expr) -> None:
    """Accept what the worker's own type builder knows, and nothing else."""
    match node:
        case ast.Constant(value=None):
            return
        case ast.Name(id=type_name):
            if type_name not in PLAIN_TYPES:
                _fail_type(where, name, type_name)
        case ast.Attribute(value=ast.Name(id="dspy"), attr=attribute) if attribute[0] != "_":
            return  # the worker looks it up; it must be a dspy type
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            _check_type(where, name, left)
            _check_type(where, name, right)
        case ast.Subscript(value=ast.Name(id=type_name), slice=inside):
            _check_generic(where, name, type_name, inside)
        case _:
            _fail_type(where, name, ast.unparse(node))


def _check_generic(where: object, name: str, type_name: str, inside: ast.expr) -> None:
    arity = GENERIC_TYPES.get(type_name)
    if arity is None:
        _fail_type(where, name, f"{type_name}[...]")
    arguments = elements_of(inside)
    least, most = arity
    if len(arguments) < least or (most is not None and len(arguments) > most):
        _fail(where, f"in the type of {name!r}, {type_name} takes {least} argument(s)")
    for argument in arguments:
        if type_name == "Literal":
            _check_choice(where, name, argument)
        elif not (type_name == "tuple" and _is_ellipsis(argument)):
            _check_type(where, name, argument)


def _check_choice(where: object, name: str, node: ast.expr) -> None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        value = ...
    if not isinstance(value, (str, int, bool)):
        shown = ast.unparse(node)
        _fail(where, f"{shown} in the Literal of {name!r} is no choice; quote text, as in 'yes'")


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is Ellipsis


def _allows_none(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=None) | ast.Name(id="None"):
            return True
        case ast.BinOp(left=left, right=right):
            return _allows_none(left) or _allows_none(right)
        case ast.Subscript(value=ast.Name(id="Optional")):
            return True
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=elements)):
            return any(_allows_none(element) for element in elements)
        case _:
            return False


def _check_names(where: object, inputs: Sequence[Field], outputs: Sequence[Field]) -> None:
    seen: set[str] = set()
    for field in (*inputs, *outputs):
        if field.name in seen:
            _fail(where, f"the field {field.name!r} is there twice; rename one")
        seen.add(field.name)
    for field in inputs:
        if field.name in _RESERVED_INPUTS:
            _fail(where, f"an input can't be called {field.name!r}: DSPy takes it as an option")


def _fail_type(where: object, name: str, shown: str) -> NoReturn:
    names = sorted(PLAIN_TYPES | set(GENERIC_TYPES))
    _fail(
        where,
        f"the type of {name!r} is {shown!r}, which is not known{did_you_mean(shown, names)} "
        f"(known: {', '.join(names)}, dspy.<type>)",
    )


def _fail(signature: object, problem: str, cause: BaseException | None = None) -> NoReturn:
    shown = _clip(repr(signature))
    raise SignatureInvalid(
        f"the signature {shown} can't be used: {problem}; {_EXAMPLE}",
        details={"signature": shown, "problem": problem},
    ) from cause


def _clip(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."
