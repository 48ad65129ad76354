"""What a prediction gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["PredictionResult"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionResult(Mapping[str, Any]):
    """The output fields of a prediction; it is a mapping of them.

    Attributes:
        fields: the output fields by name.
        session_id: the session it ran in; a temporary one is closed by now.
        worker: the process id of the worker that it ran in.
        elapsed: seconds from the call to the result, waiting included.
    """

    fields: Mapping[str, Any]
    session_id: str
    worker: int
    elapsed: float

    @property
    def reasoning(self) -> str | None:
        """What the model thought before it answered, if the signature or program asks for it."""
        return self.fields.get("reasoning")

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)
