"""Drawings in SVG, which every browser shows and which needs no library to be written."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_STYLE = "font-family:system-ui,sans-serif"


class Box(NamedTuple):
    """A rectangle, in pixels from the top left corner."""

    x: float
    y: float
    width: float
    height: float


def draw_box(box: Box, color: str, tip: str = "") -> str:
    """A filled rectangle that says ``tip`` where the pointer rests on it."""
    x, y, width, height = (round(side, 2) for side in box)
    inside = f"<title>{escape(tip)}</title>" if tip else ""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{color}">{inside}</rect>'


def draw_text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12) -> str:
    """A line of text; ``anchor`` says which end of it is at ``x``."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#222">{escape(text)}</text>'


def draw_line(begin: tuple[float, float], end: tuple[float, float], color: str) -> str:
    """A thin line."""
    (x1, y1), (x2, y2) = begin, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"/>'


def join_drawing(width: float, height: float, shapes: Iterable[str]) -> str:
    """The whole file, on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" style="{_STYLE}">'
    return "\n".join([head, draw_box(Box(0, 0, width, height), "#fff"), *shapes, "</svg>\n"])
