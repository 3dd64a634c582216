"""When a device did what was queued on a stream: by events, which the device stamps as it passes them."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from fastload._trace import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._trace import Trace


class StreamSpans:
    """The spans of one stream, told to a trace at the end, when all of its events have passed."""

    def __init__(self, trace: Trace, stream: torch.cuda.Stream, lane: str) -> None:
        """Waits for what is queued on ``stream``, to learn what its clock shows at a time that the host knows."""
        self._trace = trace
        self._stream = stream
        self._lane = lane
        self._marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
        self._zero = self._record()
        self._zero.synchronize()
        self._zero_s = time.perf_counter()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """What is queued on the stream in this block is ``name``."""
        begin = self._record()
        yield
        self._marks.append((name, begin, self._record()))

    def tell(self) -> None:
        """Add all to the trace; nothing may be under way on the stream."""
        for name, begin, end in self._marks:
            self._trace.add(Span(self._lane, name, "device", self._host_s(begin), self._host_s(end), {}))
        self._marks.clear()

    def _record(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def _host_s(self, event: torch.cuda.Event) -> float:
        elapsed_ms: float = self._zero.elapsed_time(event)
        return self._zero_s + elapsed_ms / 1e3
