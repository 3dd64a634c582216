"""Slow beyond use: a transfer that a time-out between two bytes never ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload._store.hub.access import Patience


class Meter:
    """Notices, window after window, that too little came since it was made."""

    def __init__(self, patience: Patience) -> None:
        self._window_s = patience.floor_window_s
        self.verdict = f"slower than {patience.floor_bytes_per_s:,} bytes a second"
        """What is said of what is too slow."""
        self._floor_bytes = patience.floor_bytes_per_s * patience.floor_window_s
        self._begin()

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._bytes = 0

    def is_too_slow(self, more_bytes: int) -> bool:
        """Count ``more_bytes``; True at the end of a window in which too few came."""
        self._bytes += more_bytes
        if time.monotonic() - self._since < self._window_s:
            return False
        was_slow = self._bytes < self._floor_bytes
        self._begin()
        return was_slow
