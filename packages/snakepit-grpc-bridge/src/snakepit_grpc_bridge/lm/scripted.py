"""A language model that answers from a script, for tests that need exact answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snakepit.errors import ConfigurationError

__all__ = ["ScriptedModel"]

Response = str | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ScriptedModel:
    """Answers that are known beforehand. Chosen explicitly as ``model=``, never by default.

    It runs inside each program worker, so with several workers each goes through the script on its
    own; use ``workers=1`` where order matters.

    Attributes:
        responses: used up in order. A mapping gives the output fields by name; text is returned as
            the model's raw completion.
        matches: answers by a piece of text that the request's last message must contain; the first
            that fits wins, before ``responses``, and is never used up.

    Raises:
        ConfigurationError: the script is empty or holds something else.

    Example:
        >>> ScriptedModel(responses=[{"answer": "Paris"}]).responses
        ({'answer': 'Paris'},)
    """

    responses: Sequence[Response] = ()
    matches: Mapping[str, Response] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.responses, (str, Mapping)) or not isinstance(self.matches, Mapping):
            raise ConfigurationError(
                "a ScriptedModel takes responses=[...] (a list) and matches={...} (a mapping of "
                "text to response)"
            )
        object.__setattr__(self, "responses", tuple(self.responses))
        object.__setattr__(self, "matches", dict(self.matches))
        answers = [*self.responses, *self.matches.values()]
        if not answers:
            raise ConfigurationError("a ScriptedModel needs at least one response")
        for answer in answers:
            if not isinstance(answer, (str, Mapping)):
                raise ConfigurationError(
                    "each response of a ScriptedModel is text or a mapping of output fields, not "
                    f"{type(answer).__name__}"
                )

    def to_plain(self) -> dict[str, Any]:
        """Return the script as plain data, for the workers."""
        plain = [dict(item) if isinstance(item, Mapping) else item for item in self.responses]
        return {
            "responses": plain,
            "matches": {
                text: dict(item) if isinstance(item, Mapping) else item
                for text, item in self.matches.items()
            },
        }
