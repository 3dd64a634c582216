"""``deadline``: when to give up, whatever is under way.

Work that goes on in steps checks the time between them, and so ends by itself, with all that it holds let go. What may
hang in one step, as any look at a dead mount may, is done on a thread that is left behind then.
"""

from __future__ import annotations

import time
from concurrent.futures import wait as wait_futures
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fastload._fetch.workers import JOIN_S, begin
from fastload._store.refusal import system_refusals
from fastload._thread import LOOK_S
from fastload.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

Result = TypeVar("Result")


class Deadline:
    """The moment at which to give up, counted from when this is made."""

    def __init__(
        self,
        after_s: float | None,
        what: str,
        hint: str = "Give it longer: raise the deadline",
        *,
        grace_s: float = JOIN_S,
    ) -> None:
        """When to give up, and what that means.

        Args:
            after_s: seconds from now; None: never.
            what: is under way.
            hint: what to do when it did not end.
            grace_s: for work that does not hang to end by itself when it is over; none where it holds nothing.
        """
        self._after_s = after_s
        self._what = what
        self._hint = hint
        self._grace_s = grace_s
        self._begin_s = time.monotonic()
        self._is_in_vain = False

    @property
    def left_s(self) -> float | None:
        """How much time there is, 0 where it is over; None: any."""
        if self._after_s is None:
            return None
        return max(0.0, self._begin_s + self._after_s - time.monotonic())

    @property
    def next_look_s(self) -> float:
        """How long to wait at once for what may take as long as there is time: Ctrl-C must be noticed."""
        left_s = self.left_s
        return LOOK_S if left_s is None else min(LOOK_S, left_s)

    def check(self) -> None:
        """Raise ``DeadlineError`` once it is over, or nobody waits any more."""
        if self._is_in_vain or self.left_s == 0:
            raise DeadlineError(self._after_s or 0, self._what, self._hint)

    def within(self, work: Callable[[], Result], discard: Callable[[Result], object] = lambda _: None) -> Result:
        """What ``work`` returns or raises, if it does in time.

        Args:
            work: is done on a thread of its own where there is a deadline.
            discard: is given what comes too late.

        Raises:
            DeadlineError: it does not.
            StoreError: the system refused what nobody else has expected it to refuse.
        """
        with system_refusals():
            return work() if self._after_s is None else self._work_apart(work, discard)

    def apart(self, work: Callable[[], Result], discard: Callable[[Result], object] = lambda _: None) -> Result:
        """The same, on a thread of its own where there is no deadline, too.

        For what would hang on the caller's thread: no Ctrl-C is noticed while that waits for a mount that is dead.

        Raises:
            DeadlineError, StoreError: as for :meth:`within`.
        """
        with system_refusals():
            return self._work_apart(work, discard)

    def _work_apart(self, work: Callable[[], Result], discard: Callable[[Result], object]) -> Result:
        outcome, thread = begin(work, "fastload-within")
        try:
            while not wait_futures([outcome], self.next_look_s).done:
                self.check()
            thread.join(JOIN_S)  # it has nothing left to do, and counts against a limit of processes
        except BaseException as exc:  # Ctrl-C too
            self._is_in_vain = True
            wait_futures([outcome], self._grace_s)
            if not (isinstance(exc, DeadlineError) and outcome.done()):
                outcome.add_done_callback(partial(_discard, discard))
                raise
        return outcome.result()  # in the last moment too: what it raised says more than that time is over


NEVER = Deadline(None, "")


def _discard(discard: Callable[[Result], object], outcome: Future[Result]) -> None:
    if outcome.exception() is None:
        discard(outcome.result())
