"""Which extent of which file is brought next, what is still to come, and why it comes no more."""

from __future__ import annotations

import threading
from collections import Counter, deque
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILES_AT_ONCE = 4
_THREADS_PER_FILE = 2
"""While one reads, another digests."""


class ExtentQueue:
    """The extents of some files, of so many bytes; by the file's number and its own offset."""

    def __init__(self, sizes: Sequence[int], extent_bytes: int, depth: int) -> None:
        """``depth``: how many threads may bring them at once."""
        self._sizes = sizes
        self._extent_bytes = extent_bytes
        self._changed = threading.Condition()
        self._waiting: deque[tuple[int, int]] = deque()
        self._unread = dict.fromkeys(range(len(sizes)), 0)
        """Extents that have not been staged yet, by file."""
        self._unsettled = 0
        self._error: BaseException | None = None
        self.is_stopped = False
        at_once = min(_FILES_AT_ONCE, max(1, depth // _THREADS_PER_FILE))
        for first in range(0, len(sizes), at_once):
            self._enqueue(range(first, min(first + at_once, len(sizes))))

    def _enqueue(self, numbers: Sequence[int]) -> None:
        """Queue the extents of these files in turns: one file's sha256 is one core's work, several files' are more."""
        columns: list[list[tuple[int, int]]] = []
        for number in numbers:
            offsets = range(0, max(1, self._sizes[number]), self._extent_bytes)
            self._unread[number] = len(offsets)
            columns.append([(number, offset) for offset in offsets])
        self._waiting.extend(extent for row in zip_longest(*columns) for extent in row if extent is not None)
        self._unsettled += len(numbers)

    def __len__(self) -> int:
        """How many nobody has taken."""
        return len(self._waiting)

    def count_by_file(self) -> Counter[int]:
        """The same, by file."""
        return Counter(number for number, _ in self._waiting)

    def take(self) -> tuple[int, int] | None:
        """The next one. Waits while others settle files, since what they find may have to be read again."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over() or self._waiting)
            return None if self._is_over() else self._waiting.popleft()

    def count_down(self, number: int) -> bool:
        """An extent of file ``number`` was staged; True if it was the last one, so that the file is to be settled."""
        with self._changed:
            self._unread[number] -= 1
            return not self._unread[number]

    def settle(self, number: int, *, again: bool) -> None:
        """The file is as it should be; or all of it is to be brought ``again``."""
        with self._changed:
            if again:
                self._enqueue([number])
            self._unsettled -= 1
            self._changed.notify_all()

    def stop(self, error: BaseException | None = None) -> None:
        """Give out nothing more; of several errors, the first one counts."""
        with self._changed:
            self._error = self._error or error
            self.is_stopped = True
            self._changed.notify_all()

    def is_stopped_within(self, seconds: float) -> bool:
        """True if it is stopped before so many have passed."""
        if seconds <= 0:
            return self.is_stopped
        with self._changed:
            return self._changed.wait_for(lambda: self.is_stopped, timeout=seconds)

    def wait_over(self, seconds: float) -> bool:
        """True once all files are settled, or it was stopped; waits for that so long at most."""
        with self._changed:
            self._changed.wait_for(self._is_over, timeout=seconds)
            return self._is_over()

    def _is_over(self) -> bool:
        return self.is_stopped or not self._unsettled

    def check(self) -> None:
        """Raise the error by which it was stopped, if there is one."""
        if self._error is not None:
            raise self._error
