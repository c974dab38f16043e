"""Bar charts as SVG, one below the other: nothing that a browser does not show."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, LABEL, BAR, GAP = 760, 170, 18, 34
COLOURS = ("#1f77b4", "#7f7f7f", "#2ca02c", "#d62728", "#9467bd")


class Chart(NamedTuple):
    """A title, and a bar for each name; shorter is better."""

    title: str
    bars: Mapping[str, float]


def draw(charts: Iterable[Chart]) -> str:
    """An SVG document."""
    parts: list[str] = []
    top = 10
    for chart in charts:
        parts.append(_text(10, top + 14, chart.title, "bold"))
        top += 24
        longest = max([*chart.bars.values(), 1e-9])
        for number, (name, value) in enumerate(chart.bars.items()):
            length = max(1, (WIDTH - LABEL - 90) * max(value, 0) / longest)
            colour = COLOURS[number % len(COLOURS)]
            parts.append(_text(10, top + 13, name))
            parts.append(
                f'<rect x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR - 4}" '
                f'fill="{colour}"/>'
            )
            parts.append(_text(LABEL + length + 6, top + 13, f"{value:,.1f}"))
            top += BAR
        top += GAP - BAR
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
    style = 'font-family="sans-serif" font-size="12">'
    background = f'<rect width="{WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([head + style, background, *parts, "</svg>", ""])


def _text(x: float, y: float, words: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}">{escape(words)}</text>'
