"""Readers that are open while somebody reads from their file: opened at its first extent, closed after its last."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from fastload._thread import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Pooled(Protocol):
    """What can be held open, such as a :class:`~fastload._read.reader.Reader`."""

    def check_path(self) -> None:
        """Called after the file's last extent."""

    def close(self) -> None:
        """Called when nobody uses it any more."""


Opened = TypeVar("Opened", bound=Pooled)


class Loan(Generic[Opened]):
    """A reader, for one extent."""

    __slots__ = ("_number", "_pool", "_reader")

    def __init__(self, pool: ReaderPool[Opened], number: int) -> None:
        self._pool = pool
        self._number = number

    def __enter__(self) -> Opened:
        self._reader: Opened | None = None
        try:
            self._reader = self._pool.lend(self._number)
        except BaseException:
            self._pool.take_back(self._number, None)
            raise
        return self._reader

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self._pool.take_back(self._number, self._reader if failure is None else None)


class ReaderPool(Generic[Opened]):
    """Open readers by number. A checkpoint may have more files than a process may have descriptors."""

    def __init__(self, open_reader: Callable[[int], Opened], extents: Mapping[int, int]) -> None:
        """``extents``: how many will be read of each file."""
        self._open_reader = open_reader
        self._left = Counter(extents)
        self._lock = threading.Lock()
        self._open: dict[int, Future[Opened]] = {}
        self._users: Counter[int] = Counter()
        self._is_closed = False

    def expect(self, extents: Mapping[int, int]) -> None:
        """So many more will be read of each file."""
        with self._lock:
            self._left.update(extents)

    def reader_for(self, number: int) -> Loan[Opened]:
        """The file's reader, for one extent, as a context. After its last one the path is checked, the reader closed.

        The first to come opens it, without the lock: an open may hang, and must hold up neither other files nor
        :meth:`close`.
        """
        return Loan(self, number)

    def forgo(self, number: int) -> None:
        """One extent of the file need not be read; its reader is closed if that was the last one."""
        with self._lock:
            self._left[number] -= 1
            self._close_idle()

    def lend(self, number: int) -> Opened:
        """The reader of a file, until it is given back."""
        with self._lock:
            opening = self._open.get(number)
            self._users[number] += 1
            if is_first := opening is None:
                opening = self._open[number] = Future()
        if is_first:
            settle(opening, partial(self._open_reader, number))
        return opening.result()

    def take_back(self, number: int, reader: Opened | None) -> None:
        """Whoever had ``reader`` has read an extent; None: it has failed."""
        try:
            if reader is not None and self._was_last(number):
                reader.check_path()
        finally:
            with self._lock:
                self._users[number] -= 1
                if not self._users[number] and (self._is_closed or self._left[number] <= 0):
                    self._close_idle()

    def _was_last(self, number: int) -> bool:
        with self._lock:
            self._left[number] -= 1
            return not self._left[number]

    def close(self) -> None:
        """Close what is open; a reader still in use is closed by its last user."""
        with self._lock:
            self._is_closed = True
            self._close_idle()

    def _close_idle(self) -> None:
        with ExitStack() as closing:  # Ctrl-C ends one of them, and the others are closed all the same
            for number in [n for n in self._open if not self._users[n] and (self._is_closed or self._left[n] <= 0)]:
                opening = self._open.pop(number)  # first: a descriptor that is closed twice may be another's by then
                if opening.exception() is None:
                    closing.callback(opening.result().close)
