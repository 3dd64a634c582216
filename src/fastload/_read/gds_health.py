"""cuFile's errors in this process: after three of them it is not asked again."""

from __future__ import annotations

import threading
from functools import cache

_ENOUGH = 3


class GdsHealth:
    """Counts; any thread may add to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._last = ""

    def note(self, failure: Exception) -> None:
        """One more."""
        with self._lock:
            self._failures += 1
            self._last = str(failure)

    @property
    def verdict(self) -> str:
        """Why cuFile is not asked any more; empty while it is."""
        if self._failures < _ENOUGH:
            return ""
        return f"{self._failures} errors of cuFile in this process, the last one: {self._last}"


@cache
def process_health() -> GdsHealth:
    """This process's: a driver that has failed in one load will fail in the next."""
    return GdsHealth()
