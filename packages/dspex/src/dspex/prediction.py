"""What a program answers: its output fields, by attribute and by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dspex.errors import OutputFieldMissing


class _FieldMissing(OutputFieldMissing, KeyError, AttributeError, registered=False):
    """`OutputFieldMissing` as the mapping and attribute protocols need it (`get`, `hasattr`)."""


class Prediction(Mapping[str, Any]):
    """The output fields of one call of a program: read-only, and plain data.

    A field is read as `result.answer` or `result["answer"]`; the whole is a mapping, so
    `dict(result)`, `len(result)` and `"answer" in result` work. A field with the name of a mapping
    method (`items`, `keys`, `values`, `get`) is reached by item only. A missing field raises
    `OutputFieldMissing`, which names those that exist.

    Example:
        >>> result = Prediction({"answer": "Paris"})
        >>> result.answer
        'Paris'
        >>> dict(result)
        {'answer': 'Paris'}
    """

    __slots__ = ("_fields",)

    _fields: dict[str, Any]

    def __init__(self, fields: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_fields", dict(fields))

    def __getitem__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise self._missing(name) from None

    def __getattr__(self, name: str) -> Any:
        # copy and pickle probe for dunders on objects that have no slots filled yet.
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Prediction is read-only: {name!r} can't be set")

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._fields})

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._fields.items())
        return f"Prediction({inside})"

    def __reduce__(self) -> tuple[type[Prediction], tuple[dict[str, Any]]]:
        return Prediction, (self._fields,)

    def _missing(self, name: str) -> _FieldMissing:
        known = ", ".join(self._fields) or "none"
        return _FieldMissing(
            f"the prediction has no output field {name!r}; it has: {known}",
            details={"field": name, "available": list(self._fields)},
        )


class Answer(str):
    """An answer, and the reasoning that led to it if it was asked for.

    It is a `str` in every respect; `reasoning` is `None` unless `reasoning=True` was passed.

    Example:
        >>> answer = Answer("Paris", reasoning="France's capital is Paris.")
        >>> answer == "Paris", answer.reasoning
        (True, "France's capital is Paris.")
    """

    __slots__ = ("reasoning",)

    reasoning: str | None

    def __new__(cls, text: str, *, reasoning: str | None = None) -> Answer:
        answer = super().__new__(cls, text)
        answer.reasoning = reasoning
        return answer

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, str | None]]:
        return (str(self),), {"reasoning": self.reasoning}
