"""What a docstring says of a function and its parameters. Pure.

Parsed by griffe, which knows the styles of Google, NumPy and Sphinx.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Documentation", "read_docstring"]

_PARAMETERS = frozenset({"parameters", "other parameters"})
_NO_TEXT = frozenset({"example", "examples", "see-also"})


class Documentation(NamedTuple):
    """The text of a docstring without its sections, and what it says of each parameter."""

    text: str
    parameters: dict[str, str]


def read_docstring(doc: str) -> Documentation:
    """Return what a docstring, indented as ``inspect.getdoc`` does it, says.

    Notes and warnings belong to the text; examples and all about results and errors do not.

    Example:
        >>> read_docstring("Add.\\n\\nArgs:\\n    x: The first.").parameters
        {'x': 'The first.'}
    """
    if "\n" not in doc and ":param" not in doc:
        return Documentation(doc.strip(), {})
    # Imported here: it takes a tenth of a second, and many functions have one line.
    from griffe import Docstring, Parser

    quiet = {"warnings": False}
    sections = Docstring(doc).parse(
        "auto",
        method="max_sections",
        per_style_options={Parser.google: quiet, Parser.numpy: quiet, Parser.sphinx: quiet},
    )
    texts: list[str] = []
    parameters: dict[str, str] = {}
    for section in sections:
        if section.kind.value in _PARAMETERS:
            for each in section.value:
                parameters[each.name.lstrip("*")] = each.description.strip()
        elif section.kind.value == "text":
            texts.append(section.value)
        elif section.kind.value == "admonition" and section.value.kind not in _NO_TEXT:
            texts.append(f"{section.title}: {section.value.contents}")
    return Documentation("\n\n".join(texts).strip(), parameters)
