"""Asking tiers that may never answer: a dead mount holds whoever touches it, for ever and without an error."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from fastload._thread import start_thread
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastload._store.root import Root

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True)
class Answers(Generic[Reply]):
    """What the roots said, in their order, and why the others said nothing."""

    replies: tuple[tuple[Root, Reply], ...]
    silent: tuple[tuple[Root, str], ...]


def ask_all(
    roots: Sequence[Root],
    question: Callable[[Root], Reply],
    *,
    patience_s: float,
    is_enough: Callable[[Reply], bool] = lambda _: False,
) -> Answers[Reply]:
    """Ask all ``roots`` at once and wait ``patience_s`` at most, for all of them together.

    A thread that hangs in a dead mount is left behind: it is a daemon, and its answer is not waited for any more.

    Args:
        roots: in the order in which their answers count.
        question: asked of each, on a thread of its own.
        patience_s: seconds.
        is_enough: if a root's answer is, those behind it are not waited for.

    Raises:
        FastloadError: what a root raised, other than that it cannot be read.
    """
    said = _hear(roots, question, time.monotonic() + patience_s, is_enough)
    replies: list[tuple[Root, Reply]] = []
    silent: list[tuple[Root, str]] = []
    for number, root in enumerate(roots):
        reply = said.get(number, StoreError(root.path, f"no answer within {patience_s:g} s"))
        if isinstance(reply, StoreError):
            silent.append((root, reply.reason))
        elif isinstance(reply, BaseException):
            raise reply
        else:
            replies.append((root, reply))
            if is_enough(reply):
                break
    return Answers(tuple(replies), tuple(silent))


def _hear(
    roots: Sequence[Root], question: Callable[[Root], Reply], until_s: float, is_enough: Callable[[Reply], bool]
) -> dict[int, Reply | BaseException]:
    """What the roots say, by number, until it is enough or the time is over."""
    inbox: queue.SimpleQueue[tuple[int, Reply | BaseException]] = queue.SimpleQueue()

    def ask(number: int) -> None:
        try:
            inbox.put((number, question(roots[number])))
        except BaseException as exc:  # noqa: BLE001 - it travels to the caller's thread
            inbox.put((number, exc))

    for number in range(len(roots)):
        start_thread(threading.Thread(target=ask, args=(number,), name=f"fastload-ask-{number}", daemon=True))
    said: dict[int, Reply | BaseException] = {}
    while _is_awaited(said, len(roots), is_enough):
        try:
            number, reply = inbox.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            break
        said[number] = reply
    return said


def _is_awaited(said: Mapping[int, Reply | BaseException], count: int, is_enough: Callable[[Reply], bool]) -> bool:
    """False as soon as all have said something, or one has that is enough, and all before it something else."""
    for number in range(count):
        if number not in said:  # None is an answer too
            return True
        reply = said[number]
        if not isinstance(reply, BaseException) and is_enough(reply):
            return False
    return False
