"""Tables as bars: GB/s by median, fastest first, with a whisker from the slowest to the fastest round."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from fastload.ops.bench.contestants import BOUNDS
from fastload.ops.bench.svg import Box, draw_box, draw_line, draw_text, join_drawing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload.ops.bench.measure import Sample
    from fastload.ops.bench.tables import Table

_WIDTH, _LABELS, _NUMBERS = 860.0, 190.0, 80.0
_ROW, _GAP, _HEAD = 22.0, 6.0, 34.0
_OURS, _PEERS, _BOUNDS = "#2a78c8", "#9aa5b1", "#dfe4ea"


def draw_chart(tables: Sequence[Table], verdict: str = "") -> str:
    """All tables below one another, each with a scale of its own, and the verdict below them."""
    shapes: list[str] = []
    top = _GAP
    for table in tables:
        if table.samples:
            shapes += _draw_table(table, top)
            top += _HEAD + len(table.samples) * _ROW + 2 * _GAP
    if verdict:
        shapes.append(draw_text(_GAP, top + 18, verdict))
        top += _HEAD
    return join_drawing(_WIDTH, top, shapes)


def _draw_table(table: Table, top: float) -> Iterator[str]:
    speeds = {row: sorted(_speed(sample) for sample in samples) for row, samples in table.samples.items()}
    scale = (_WIDTH - _LABELS - _NUMBERS) / max(each[-1] for each in speeds.values())
    yield draw_text(_GAP, top + 18, f"{table.title}, GB/s", size=15)
    for number, (row, found) in enumerate(sorted(speeds.items(), key=lambda each: -median(each[1]))):
        y = top + _HEAD + number * _ROW
        middle = y + (_ROW - _GAP) / 2
        yield draw_text(_LABELS - _GAP, middle + 4, row, anchor="end")
        yield draw_box(Box(_LABELS, y, median(found) * scale, _ROW - _GAP), _color(row))
        ends = [(_LABELS + speed * scale, middle) for speed in (found[0], found[-1])]
        yield draw_line(ends[0], ends[1], "#222")
        yield draw_text(_LABELS + found[-1] * scale + _GAP, middle + 4, f"{median(found):.2f}")


def _speed(sample: Sample) -> float:
    return sample.nbytes / sample.seconds / 1e9


def _color(row: str) -> str:
    if row in BOUNDS:
        return _BOUNDS
    return _OURS if row.startswith("fastload") else _PEERS
