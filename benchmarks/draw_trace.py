"""Draws a trace that ``fastload load --trace FILE`` wrote as a picture, for a page that cannot show a viewer.

python benchmarks/draw_trace.py trace.json trace.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastload.ops.bench.svg import Box, draw_box, draw_line, draw_text, join_drawing

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH, _LABELS, _MARGIN = 1100.0, 150.0, 12.0
_LANE, _BAR, _INSET = 24.0, 18.0, 4.0
_LEGEND = 28.0
_COLORS = {
    "stage": "#c9d1d9",
    "read": "#2a78c8",
    "hash": "#e08a1e",
    "copy": "#3a9d5d",
    "write": "#8e5bb5",
    "wait": "#eceff2",
    "turn": "#f4d3a6",
    "device": "#c0392b",
}
_SHORTEST = 0.4
"""Pixels: what is narrower is drawn so wide, else it would not be seen."""


def draw(events: list[dict[str, Any]]) -> str:
    """A lane for each of the trace's, with what is inside of something else drawn lower."""
    lanes = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = [event for event in events if event["ph"] == "X"]
    begin = min(span["ts"] for span in spans)
    scale = (_WIDTH - _LABELS - _MARGIN) / (max(span["ts"] + span["dur"] for span in spans) - begin)
    bottom = _LEGEND + len(lanes) * _LANE
    shapes = [*_draw_legend({span["cat"] for span in spans}), *_draw_axis(scale, bottom)]
    for number, (tid, name) in enumerate(lanes.items()):
        y = _LEGEND + number * _LANE
        shapes.append(draw_text(_LABELS - 8, y + 15, name, anchor="end"))
        for span, depth in _nest([span for span in spans if span["tid"] == tid]):
            x = _LABELS + (span["ts"] - begin) * scale
            height = _BAR - depth * _INSET
            box = Box(x, y + 2 + depth * _INSET, max(_SHORTEST, span["dur"] * scale), height)
            shapes.append(draw_box(box, _COLORS[span["cat"]], f"{span['name']}, {span['dur'] / 1000:.2f} ms"))
    return join_drawing(_WIDTH, bottom + 28, shapes)


def _nest(spans: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    """Each with the number of those that it lies within."""
    open_ends: list[float] = []
    for span in sorted(spans, key=lambda span: (span["ts"], -span["dur"])):
        while open_ends and open_ends[-1] <= span["ts"]:
            open_ends.pop()
        yield span, len(open_ends)
        open_ends.append(span["ts"] + span["dur"])


def _draw_legend(kinds: set[str]) -> Iterator[str]:
    x = _LABELS
    for kind in (kind for kind in _COLORS if kind in kinds):
        yield draw_box(Box(x, 6, 12, 12), _COLORS[kind])
        yield draw_text(x + 16, 16, kind)
        x += 80


def _draw_axis(scale: float, bottom: float) -> Iterator[str]:
    """A line every so many milliseconds, ten at most."""
    whole_ms = (_WIDTH - _LABELS - _MARGIN) / scale / 1000
    step_ms = next(step for step in (n * 10**power for power in range(6) for n in (1, 2, 5)) if whole_ms / step <= 10)
    for number in range(int(whole_ms / step_ms) + 1):
        x = _LABELS + number * step_ms * 1000 * scale
        yield draw_line((x, _LEGEND), (x, bottom), "#e3e7ea")
        yield draw_text(x, bottom + 16, f"{number * step_ms} ms", anchor="middle", size=11)


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    asked = parser.parse_args()
    asked.picture.write_text(draw(json.loads(asked.trace.read_text())["traceEvents"]), encoding="utf-8")


if __name__ == "__main__":
    main()
