"""Work on threads of its own, none of which can keep the interpreter from ending: any may hang in a dead mount.

An executor's threads can: the interpreter waits for them.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from fastload._thread import LOOK_S, join_all, settle, start_thread
from fastload.errors import MemoryBudgetError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logging.getLogger("fastload")

JOIN_S = 0.8
"""How long whoever gives up waits for work that does not hang to end by itself: Ctrl-C promises a second."""


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
        queue = _Queue(work, items)
        with self._ending(queue):
            for thread in queue.give_threads(self._thread_count):
                start_thread(thread)
            return [_result_of(outcome) for outcome in queue.outcomes]

    def each(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result]:
        """The same, as they come. Whoever asks for them is one of the threads, the only one where there are no others.

        So it must not be a thread that a Ctrl-C is to end while ``work`` hangs. Close it when no more is wanted.
        """
        queue = _Queue(work, items)
        with self._ending(queue):
            for thread in queue.give_threads(min(self._thread_count, len(queue.outcomes)) - 1):
                try:
                    start_thread(thread)
                except (MemoryBudgetError, UnsupportedError) as exc:
                    _log.debug("goes on with fewer threads: %s", exc)
                    break
            for outcome in queue.outcomes:
                while not outcome.done() and queue.take_on():
                    pass
                yield outcome.result()

    @contextmanager
    def _ending(self, queue: _Queue[Item, Result]) -> Iterator[None]:
        try:
            yield
        except BaseException:  # Ctrl-C too
            self._is_in_vain = True
            raise
        finally:
            queue.end()


class _Queue(Generic[Item, Result]):
    """Items that wait for their work, and what came of it."""

    def __init__(self, work: Callable[[Item], Result], items: Iterable[Item]) -> None:
        self._work = work
        self._waiting: SimpleQueue[tuple[Item, Future[Result]]] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.outcomes: list[Future[Result]] = []
        """Of each item, in their order."""
        for item in items:
            self.outcomes.append(Future())
            self._waiting.put((item, self.outcomes[-1]))

    def give_threads(self, most: int) -> Sequence[threading.Thread]:
        """Up to so many threads, to be started, that work until nothing waits."""
        self._threads = [
            threading.Thread(target=self._take_all, name=f"fastload-work-{number}", daemon=True)
            for number in range(min(most, len(self.outcomes)))
        ]
        return self._threads

    def _take_all(self) -> None:
        while self.take_on():
            pass

    def take_on(self) -> bool:
        """Do the work of one item; False where none waits."""
        try:
            item, outcome = self._waiting.get_nowait()
        except Empty:
            return False
        if outcome.set_running_or_notify_cancel():
            settle(outcome, partial(self._work, item))
        return True

    def end(self) -> None:
        """Let nothing more begin, and wait for what has."""
        for outcome in self.outcomes:
            outcome.cancel()  # where it has not begun
        join_all(self._threads, JOIN_S)


def _result_of(outcome: Future[Result]) -> Result:
    while not wait([outcome], LOOK_S).done:
        pass
    return outcome.result()


class _InVainError(Exception):
    """Nobody sees it: it ends work whose result nobody waits for."""
