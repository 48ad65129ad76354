"""Just enough Markdown to test it: fenced blocks with their place, links, headings."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(
    r"(?:<!--\s*(?P<note>.*?)\s*-->\s*\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)[ #]*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block; `note` is the comment right above it, `line` the first line of its body."""

    language: str
    body: str
    line: int
    note: str


def blocks(text: str) -> list[Block]:
    return [
        Block(
            language=match["language"],
            body=re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE),
            line=text.count("\n", 0, match.start("body")) + 1,
            note=match["note"] or "",
        )
        for match in _FENCE.finditer(text)
    ]


def links(text: str) -> list[str]:
    """The targets of all links and images outside code."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    return _LINK.findall(prose)


def anchors(text: str) -> set[str]:
    """The fragments that headings can be reached by, in GitHub's spelling."""
    titles = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
