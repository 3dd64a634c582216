"""``max_rate``: so many bytes a second, however many threads read."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_BURST_S = 0.1
_LOOK_S = 0.5


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

    def wait(self, nbytes: int, go_on: Callable[[], None] = lambda: None) -> None:
        """Return when ``nbytes`` may be read, or when nobody wants them any more.

        Meanwhile ``go_on`` is asked now and then, which raises when it is time to give up: a block may take hours.
        """
        until_s = time.monotonic() + self.delay_s(nbytes)
        go_on()
        while (left_s := until_s - time.monotonic()) > 0 and not self._is_over.wait(min(left_s, _LOOK_S)):
            go_on()

    def close(self) -> None:
        """Let go whoever waits."""
        self._is_over.set()


def pace_of(bytes_per_s: int | None) -> Pace | None:
    """A pace for whoever has nothing to wait for where there is no limit."""
    return None if bytes_per_s is None else Pace(bytes_per_s)
