"""Which extent is read next, and up to where everything has been placed."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import accumulate
from typing import TYPE_CHECKING

from fastload._fetch.deadline import NEVER
from fastload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fastload._fetch.deadline import Deadline
    from fastload._plan.extent import Extent
    from fastload._plan.share import Share


_TELL_S = 0.1
"""How often the caller is told how far it has come."""
_AT_ONCE = 32
"""Extents."""


class Schedule:
    """Extents go out in order and come back in any; the caller follows the *watermark*, below which all are placed.

    With a ``window_bytes``, reading runs at most that far ahead of the caller. It never waits for a caller who waits
    for it: what the caller needs may always start.

    With a ``share``, only a part of the extents is read here. Others arrive, and :meth:`finish` tells of them as well;
    what does not concern this rank counts as placed.
    """

    def __init__(
        self,
        extents: Sequence[Extent],
        *,
        window_bytes: int | None,
        deadline: Deadline = NEVER,
        share: Share | None = None,
    ) -> None:
        self._deadline = deadline
        self._extents = extents
        self._count = len(extents)
        self._window_bytes = window_bytes
        self._changed = threading.Condition()
        self._is_shared = share is not None
        self.own: Sequence[int] = range(len(extents)) if share is None else share.own
        """What is read here."""
        kept = range(len(extents)) if share is None else share.kept
        here = (
            set(self.own)
            if share is None
            else {*self.own, *(number for each in share.arrivals.values() for number in each)}
        )
        self._ends = tuple(
            accumulate((e.length if number in kept else 0 for number, e in enumerate(extents)), initial=0)
        )
        self._waiting = deque(self.own)
        self._watermark = 0
        self._placed_early = set(range(len(extents))) - here
        self._advance()
        self._needed = 0
        self._taken = 0
        self._read: set[int] = set()
        self.read_at_s = time.perf_counter()
        """When the last extent was read here."""
        self._error: BaseException | None = None
        self._is_stopped = self._has_left = False

    @property
    def placed_bytes(self) -> int:
        """Bytes of the extents below the watermark of which something stays here."""
        return self._ends[self._watermark]

    @property
    def read_bytes(self) -> int:
        """Bytes of the extents that were read here, and placed: for a rate. What was read, the ledger says."""
        with self._changed:
            return sum(self._extents[number].length for number in self._read)

    @property
    def kept_bytes(self) -> int:
        """Bytes of all extents of which something stays here."""
        return self._ends[-1]

    @property
    def extents_here(self) -> list[Extent]:
        """Those that are read here."""
        return [self._extents[number] for number in self.own]

    @property
    def keeps_all(self) -> bool:
        """True for a caller who lets go of nothing: reading need not wait for anything."""
        return self._window_bytes is None

    def waits_for_others(self) -> bool:
        """True if nothing is left to be read here, and other ranks have not sent all."""
        return self._is_shared and not self._waiting

    def start(self, settle: Callable[[], object] = lambda: None) -> int | None:
        """The number of the next extent; waits while the window is full; None: there is nothing left to do.

        ``settle`` is called before it waits, or ends: who waits must owe nothing that the caller may wait for.
        """
        number = self.start_now()
        if number is None and not self._is_stopped:
            settle()
        while number is None:
            with self._changed:
                self._changed.wait_for(lambda: self._is_over() or self._may_start())
                if self._is_over():
                    return None
            number = self.start_now()
        return number

    def start_now(self) -> int | None:
        """The next one, if it may start now."""
        if self._window_bytes is None and not self._is_shared:  # nobody else fills the deque, which needs no lock
            return self._pop()
        with self._changed:
            if self._is_over() or not self._may_start():
                return None
            return self._waiting.popleft()

    def _pop(self) -> int | None:
        try:
            return None if self._is_stopped else self._waiting.popleft()
        except IndexError:
            return None

    def _is_over(self) -> bool:
        if self._is_stopped or self._waiting:
            return self._is_stopped
        return not self._is_shared or self._has_left or self._watermark == self._count

    def _may_start(self) -> bool:
        return bool(self._waiting) and self._may_place(self._waiting[0])

    def _may_place(self, number: int) -> bool:
        if self._window_bytes is None or self._has_left or number < self._needed:
            return True
        if self._ends[number + 1] == self._ends[number]:
            return True  # it stays in no memory here, and others may wait for it when the last tensor was taken here
        return self._ends[number + 1] - self._ends[self._taken] <= self._window_bytes

    def wait_room(self, number: int) -> bool:
        """Wait until extent ``number``, which arrives, is within the window; False: it is not wanted any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopped or self._may_place(number))
            return not self._is_stopped

    def take_over(self, numbers: Iterable[int]) -> None:
        """Read these here after all: whoever should have sent them does not."""
        with self._changed:
            taken = set(numbers)
            self.own = sorted({*self.own, *taken})
            self._waiting = deque(sorted({*self._waiting, *taken}))
            self._changed.notify_all()

    def leave(self) -> None:
        """The caller takes nothing more. What others wait for is still read; there is no window any more."""
        with self._changed:
            self._has_left = True
            self._changed.notify_all()

    @property
    def has_begun_all(self) -> bool:
        """True if nothing waits to be read here."""
        return not self._waiting

    def has_left(self) -> bool:
        """True once nothing that is read stays here."""
        return self._has_left

    def finish(self, number: int, *, is_read: bool = True) -> None:
        """Extent ``number`` has been placed; it was read here, or arrived."""
        with self._changed:
            self._placed_early.add(number)
            if is_read:
                self._read.add(number)
                self.read_at_s = time.perf_counter()
            self._advance()
            # Whoever is woken takes the GIL from those who read: only where there is something for somebody.
            if self._window_bytes is not None or self._is_shared or self._watermark >= self._needed:
                self._changed.notify_all()

    def _advance(self) -> None:
        while self._watermark in self._placed_early:
            self._placed_early.remove(self._watermark)
            self._watermark += 1

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

    def forget_error(self) -> None:
        """Whoever was to get it has it. Its traceback leads to the memory of the load, and that to here: a circle."""
        with self._changed:
            self._error = None

    def is_stopped(self) -> bool:
        """True once nothing more will be taken: all that is still under way is in vain."""
        return self._is_stopped

    def wait_placed(self, number: int, tell: Callable[[int], None]) -> None:
        """Return when all extents up to ``number`` have been placed; raise the first error of any worker.

        Args:
            number: an extent's; what was waited for before counts as taken, so the window moves on.
            tell: called with the placed bytes now and then, and at the end.

        Raises:
            DeadlineError: the deadline is over.
            UsageError: it was stopped before.
        """
        with self._changed:
            self._taken, self._needed = self._needed, max(self._needed, number + 1)
            self._changed.notify_all()
        watermark = -1
        while watermark <= number:
            watermark = self._wait_beyond(number)
            tell(self._ends[watermark])

    def _wait_beyond(self, number: int) -> int:
        """The watermark when it is beyond ``number``, or after a while."""
        left_s = self._deadline.left_s
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_stopped or self._watermark > number,
                timeout=_TELL_S if left_s is None else min(_TELL_S, left_s),
            )
            self.check()
            if self._watermark <= number:
                self.check_not_closed("its next tensor was awaited")
                self._deadline.check()
            return self._watermark

    def far_from(self, number: int) -> int:
        """Up to which extent a caller who needs ``number``, and keeps all, may wait at once: waking costs readers."""
        if not self.keeps_all:
            return number
        return min(self._count - 1, number // _AT_ONCE * _AT_ONCE + _AT_ONCE - 1)

    def check_not_closed(self, meanwhile: str) -> None:
        """Raise ``UsageError`` where it was stopped, in another thread: what came last need not be proven then."""
        if self._is_stopped:
            what = f"this stream was closed while {meanwhile}"
            raise UsageError(what, "Close it when nobody takes from it any more")

    def check(self) -> None:
        """Raise the first error of any worker."""
        if self._error is not None:
            raise self._error
