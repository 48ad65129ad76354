"""Bar charts as SVG text, so that a benchmark needs no plotting library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 760
_LABELS: Final = 270
_VALUES: Final = 90
_BAR: Final = 16
_STEP: Final = 22
_HEAD: Final = 34
_OURS: Final = "#2f6f4f"
_LIMIT: Final = "#8a8a8a"
_OTHERS: Final = "#b9c7d6"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One figure of all that have it, from 0 to the largest."""

    title: str
    bars: Sequence[tuple[str, float]]

    @property
    def height(self) -> int:
        return _HEAD + _STEP * len(self.bars) + 12


def svg(panels: Sequence[Panel]) -> str:
    """The panels, one below the other."""
    height = sum(panel.height for panel in panels) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    top = 0
    for panel in panels:
        lines += _panel(panel, top)
        top += panel.height
    return "\n".join([*lines, "</svg>"]) + "\n"


def _panel(panel: Panel, top: int) -> Iterator[str]:
    yield (
        f'<text x="8" y="{top + 22}" font-size="14" font-weight="bold">{escape(panel.title)}</text>'
    )
    largest = max(value for _, value in panel.bars) or 1.0
    room = _WIDTH - _LABELS - _VALUES
    for row, (label, value) in enumerate(panel.bars):
        y = top + _HEAD + row * _STEP
        width = max(1.0, room * value / largest)
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        yield f'<text x="{_LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>'
        yield (
            f'<rect x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" '
            f'fill="{_colour(label)}"/>'
        )
        yield f'<text x="{_LABELS + width + 6:.1f}" y="{y + 12}">{text}</text>'


def _colour(label: str) -> str:
    if label.startswith("snakepit"):
        return _OURS
    return _LIMIT if "echo" in label else _OTHERS
