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

    def wait(self, nbytes: int) -> None:
        """Return when ``nbytes`` may be read. Sleeps before the read, so that the first bytes come at once."""
        if not self._bytes_per_s:
            return
        with self._lock:
            now_s = time.monotonic()
            begin_s = max(self._free_at_s, now_s - _LONGEST_BURST_S)
            self._free_at_s = begin_s + nbytes / self._bytes_per_s
        time.sleep(max(0.0, begin_s - now_s))
