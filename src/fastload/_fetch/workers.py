"""Work on threads of its own, none of which can keep the interpreter from ending: any may hang in a dead mount.

An executor's threads can: the interpreter waits for them.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Item = TypeVar("Item")
Result = TypeVar("Result")


def settle(outcome: Future[Result], work: Callable[[], Result]) -> None:
    """Do ``work``, and let ``outcome`` be what it returned or raised."""
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001 - it travels to the caller's thread, whatever it is
        outcome.set_exception(error)


def map_all(work: Callable[[Item], Result], items: Iterable[Item], thread_count: int) -> list[Result]:
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
        for number in range(min(thread_count, len(outcomes)))
    ]
    for thread in threads:
        thread.start()
    try:
        return [outcome.result() for outcome in outcomes]
    finally:
        for outcome in outcomes:
            outcome.cancel()  # where it has not begun
        for thread in threads:
            thread.join()
