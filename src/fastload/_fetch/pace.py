"""``max_rate``: so many bytes a second, however many threads read."""

from __future__ import annotations

import threading
import time

_LONGEST_BURST_S = 0.1


class Pace:
    """Grants bytes in the order in which they are asked for; None: without limit."""

    def __init__(self, bytes_per_s: int | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at_s = time.monotonic()
        self._is_over = threading.Event()

    def delay_s(self, nbytes: int) -> float:
        """How long to wait before ``nbytes`` are read: as if they trickled in, so that no burst exceeds the rate."""
        if not self._bytes_per_s:
            return 0.0
        with self._lock:
            now_s = time.monotonic()
            self._free_at_s = max(self._free_at_s, now_s - _LONGEST_BURST_S) + nbytes / self._bytes_per_s
            return max(0.0, self._free_at_s - now_s)

    def wait(self, nbytes: int) -> None:
        """Return when ``nbytes`` may be read, or when nobody wants them any more."""
        self._is_over.wait(self.delay_s(nbytes))

    def end(self) -> None:
        """Let go whoever waits."""
        self._is_over.set()
