"""Readers that are open while somebody reads from their file: opened at its first extent, closed after its last."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Pooled(Protocol):
    """What can be held open, such as a :class:`~fastload._read.reader.Reader`."""

    def check_path(self) -> None:
        """Called after the file's last extent."""

    def close(self) -> None:
        """Called when nobody uses it any more."""


Opened = TypeVar("Opened", bound=Pooled)


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

    @contextmanager
    def reader_for(self, number: int) -> Iterator[Opened]:
        """The file's reader, for one extent. After its last one the path is checked and the reader closed.

        The first to come opens it, without the lock: an open may hang, and must hold up neither other files nor
        :meth:`close`.
        """
        with self._lock:
            is_first = number not in self._open
            opening = self._open.setdefault(number, Future())
            self._users[number] += 1
        try:
            if is_first:
                self._open_into(opening, number)
            reader = opening.result()
            yield reader
            with self._lock:
                self._left[number] -= 1
                is_last = not self._left[number]
            if is_last:
                reader.check_path()
        finally:
            with self._lock:
                self._users[number] -= 1
                self._close_idle()

    def _open_into(self, opening: Future[Opened], number: int) -> None:
        try:
            opening.set_result(self._open_reader(number))
        except BaseException as error:  # noqa: BLE001 - all who wait for it raise it
            opening.set_exception(error)

    def close(self) -> None:
        """Close what is open; a reader still in use is closed by its last user."""
        with self._lock:
            self._is_closed = True
            self._close_idle()

    def _close_idle(self) -> None:
        for number in [n for n in self._open if not self._users[n] and (self._is_closed or self._left[n] <= 0)]:
            opening = self._open.pop(number)
            if opening.exception() is None:
                opening.result().close()
