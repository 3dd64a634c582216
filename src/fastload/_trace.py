"""What every thread, stage and device stream of one load did when, in the format of Chrome's trace viewer.

The viewer (https://ui.perfetto.dev, chrome://tracing) shows a lane for each of them. Times are the machine's monotonic
clock, so that traces of several processes lie beside each other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

STAGE_LANE = "stages"
CALLER_LANE = "caller"
_TOP_LANES = (STAGE_LANE, CALLER_LANE)


class Span(NamedTuple):
    """Something that took its time."""

    lane: str
    name: str
    kind: str
    """What it counts as: an activity, such as read, or a stage."""
    begin_s: float
    """By ``time.perf_counter``."""
    end_s: float
    facts: Mapping[str, object]


class Trace:
    """The spans of one load. Any thread may add to it: ``list.append`` needs no lock."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def add(self, span: Span) -> None:
        """Note what is over."""
        self.spans.append(span)

    def extend(self, spans: Iterable[Span]) -> None:
        """Note several."""
        self.spans.extend(spans)

    def to_dict(self) -> dict[str, Any]:
        """The trace as JSON types, in the format that the viewer reads."""
        pid = os.getpid()
        lanes = {lane: number for number, lane in enumerate(_sort_lanes(span.lane for span in self.spans))}
        spans = [_show_span(span, pid, lanes[span.lane]) for span in sorted(self.spans, key=lambda s: s.begin_s)]
        names = [event for lane, number in lanes.items() for event in _name_lane(lane, pid, number)]
        return {"traceEvents": [*names, *spans], "displayTimeUnit": "ms"}


def _sort_lanes(lanes: Iterable[str]) -> list[str]:
    """Each once: those of the whole load first, then by name, with ``fastload-2`` before ``fastload-10``."""
    found = set(lanes)
    others = sorted(found - set(_TOP_LANES), key=lambda lane: (len(lane), lane))
    return [*(lane for lane in _TOP_LANES if lane in found), *others]


def _name_lane(lane: str, pid: int, number: int) -> Iterator[dict[str, Any]]:
    for name, value in (("thread_name", {"name": lane}), ("thread_sort_index", {"sort_index": number})):
        yield {"ph": "M", "name": name, "pid": pid, "tid": number, "args": value}


def _show_span(span: Span, pid: int, number: int) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": span.name,
        "cat": span.kind,
        "pid": pid,
        "tid": number,
        "ts": span.begin_s * 1e6,
        "dur": (span.end_s - span.begin_s) * 1e6,
        "args": dict(span.facts),
    }
