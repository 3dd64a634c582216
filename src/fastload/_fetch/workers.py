"""Work on threads of its own, none of which can keep the interpreter from ending: any may hang in a dead mount.

An executor's threads can: the interpreter waits for them.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from fastload._thread import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")

JOIN_S = 0.8
"""How long whoever gives up waits for work that does not hang to end by itself: Ctrl-C promises a second."""


def settle(outcome: Future[Result], work: Callable[[], Result]) -> None:
    """Do ``work``, and let ``outcome`` be what it returned or raised."""
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it travels to the caller's thread, whatever it is
        outcome.set_exception(error)


def begin(work: Callable[[], Result], name: str) -> tuple[Future[Result], threading.Thread]:
    """Do ``work`` on a thread called ``name``: a daemon, for a look at a dead mount must not keep the process alive."""
    outcome: Future[Result] = Future()
    thread = threading.Thread(target=settle, args=(outcome, work), name=name, daemon=True)
    start_thread(thread)
    return outcome, thread


class Workers:
    """Does something with each of many items, on a few threads."""

    def __init__(self, thread_count: int, go_on: Callable[[], None]) -> None:
        """``go_on`` raises when it is time to give up."""
        self._thread_count = thread_count
        self._go_on = go_on
        self._is_in_vain = False

    def go_on(self) -> None:
        """For work that goes on in steps, between them: raises when there is no use in going on.

        That is so as well when whoever wants the results was interrupted, or got an error.
        """
        if self._is_in_vain:
            raise _InVainError
        self._go_on()

    def map_all(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """What ``work`` makes of each item, in their order; after the first error nothing more is begun."""
        waiting: SimpleQueue[tuple[Item, Future[Result]]] = SimpleQueue()
        outcomes: list[Future[Result]] = []
        for item in items:
            outcomes.append(Future())
            waiting.put((item, outcomes[-1]))

        def take_on() -> None:
            with suppress(Empty):
                while True:
                    item, outcome = waiting.get_nowait()
                    if outcome.set_running_or_notify_cancel():
                        settle(outcome, partial(work, item))

        threads = [
            threading.Thread(target=take_on, name=f"fastload-work-{number}", daemon=True)
            for number in range(min(self._thread_count, len(outcomes)))
        ]
        try:
            for thread in threads:
                start_thread(thread)
            return [outcome.result() for outcome in outcomes]
        except BaseException:  # Ctrl-C too
            self._is_in_vain = True
            raise
        finally:
            for outcome in outcomes:
                outcome.cancel()  # where it has not begun
            _join(threads)


def _join(threads: Iterable[threading.Thread]) -> None:
    """Those that have begun; one that hangs is left behind."""
    until_s = time.monotonic() + JOIN_S
    for thread in threads:
        if thread.is_alive():
            thread.join(max(0.0, until_s - time.monotonic()))


class _InVainError(Exception):
    """Nobody sees it: it ends work whose result nobody waits for."""
