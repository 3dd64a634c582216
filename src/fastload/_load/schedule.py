"""Which extent is read next, and up to where everything has been placed."""

from __future__ import annotations

import threading
from itertools import accumulate
from typing import TYPE_CHECKING

from fastload._fetch.deadline import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._fetch.deadline import Deadline
    from fastload._plan.extent import Extent


class Schedule:
    """Extents go out in order and come back in any; the caller follows the *watermark*, below which all are placed.

    With a ``window_bytes``, reading runs at most that far ahead of the caller. It never waits for a caller who waits
    for it: what the caller needs may always start.
    """

    def __init__(self, extents: Sequence[Extent], *, window_bytes: int | None, deadline: Deadline = NEVER) -> None:
        self._deadline = deadline
        self._ends = tuple(accumulate((extent.length for extent in extents), initial=0))
        self._count = len(extents)
        self._window_bytes = window_bytes
        self._changed = threading.Condition()
        self._next = 0
        self._watermark = 0
        self._placed_early: set[int] = set()
        self._needed = 0
        self._taken = 0
        self._error: BaseException | None = None
        self._is_stopped = False

    @property
    def placed_bytes(self) -> int:
        """Bytes of the extents below the watermark."""
        return self._ends[self._watermark]

    def start(self, settle: Callable[[], object] = lambda: None) -> int | None:
        """The number of the next extent; waits while the window is full; None: there is nothing left to do.

        ``settle`` is called before it waits, or ends: who waits must owe nothing that the caller may wait for.
        """
        number = self._take_next()
        if number is None and not self._is_stopped:
            settle()
        while number is None:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over() or self._may_start())
                if self._is_over():
                    return None
            number = self._take_next()
        return number

    def _take_next(self) -> int | None:
        """The next one, if it may start now."""
        with self._changed:
            if self._is_over() or not self._may_start():
                return None
            self._next += 1
            return self._next - 1

    def _is_over(self) -> bool:
        return self._is_stopped or self._next == self._count

    def _may_start(self) -> bool:
        if self._window_bytes is None or self._next < self._needed:
            return True
        return self._ends[self._next + 1] - self._ends[self._taken] <= self._window_bytes

    def finish(self, number: int) -> None:
        """Extent ``number`` has been placed."""
        with self._changed:
            self._placed_early.add(number)
            while self._watermark in self._placed_early:
                self._placed_early.remove(self._watermark)
                self._watermark += 1
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """A worker cannot go on: everything stops, and the caller gets the first ``error``."""
        with self._changed:
            self._error = self._error or error
            self._is_stopped = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Start nothing any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def is_stopped(self) -> bool:
        """True once nothing more will be taken: all that is still under way is in vain."""
        return self._is_stopped

    def wait_placed(self, number: int, tell: Callable[[int], None]) -> None:
        """Return when all extents up to ``number`` have been placed; raise the first error of any worker.

        Args:
            number: an extent's; what was waited for before counts as taken, so the window moves on.
            tell: called with the placed bytes whenever there are more of them.

        Raises:
            DeadlineError: the deadline is over.
        """
        with self._changed:
            self._taken, self._needed = self._needed, max(self._needed, number + 1)
            self._changed.notify_all()
        seen = -1
        while seen <= number:
            seen = self._wait_beyond(seen)
            tell(self._ends[seen])

    def _wait_beyond(self, watermark: int) -> int:
        with self._changed:
            while not self._changed.wait_for(
                lambda: self._error is not None or self._watermark > watermark, timeout=self._deadline.left_s
            ):
                self._deadline.check()
            self.check()
            return self._watermark

    def check(self) -> None:
        """Raise the first error of any worker."""
        if self._error is not None:
            raise self._error
