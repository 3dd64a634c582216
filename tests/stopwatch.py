"""How long something took, without the time in which nothing could run: for what is promised by the clock.

A virtual machine may be held up for seconds, and a busy one may let nobody run for as long. What was promised within
one second was kept nevertheless, and a bound wide enough for all that could happen would bound nothing.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_TICK_S = 0.01
_LONGEST_TICK_S = 0.05
"""What is longer was no tick: whoever only sleeps could not run either."""


class Stopwatch:
    """Measures a block; a thread that does nothing else but sleep tells which of the time was nobody's."""

    def __init__(self, pid: int | None = None) -> None:
        """``pid``: of the process that does what is measured, where it is another one, and may have to queue."""
        self.seconds = 0.0
        """That the block took, less the time in which that thread was held up, or the process could not get a CPU."""
        self._pid = pid
        self._queued_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, name="stopwatch", daemon=True)

    def __enter__(self) -> Self:
        self._since_s = time.monotonic()
        self._take_queued_s()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _count(self) -> None:
        while not self._ended.wait(_TICK_S):
            self._tick()
        self._tick()

    def _tick(self) -> None:
        now_s = time.monotonic()
        self.seconds += max(0.0, min(now_s - self._since_s, _LONGEST_TICK_S) - self._take_queued_s())
        self._since_s = now_s

    def _take_queued_s(self) -> float:
        """How long the process's first thread was ready to run, and waited for a CPU, since this was asked before."""
        before_s = self._queued_s
        if self._pid is not None:
            with suppress(OSError), open(f"/proc/{self._pid}/schedstat") as file:  # it may have ended
                self._queued_s = int(file.read().split()[1]) / 1e9
        return self._queued_s - before_s
