"""Servers that know no ranges: one connection, read in file order by whoever's turn it is.

Each reader waits until the stream has come to its offset. Bytes that nobody has asked for yet are skipped only after a
grace, for the thread that wants them is often just behind; what is behind the stream means that it starts again. Who
waits, waits for a reader that is at work, whose reads are bounded in time, or for the grace: nobody waits for ever.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._store.hub.body import Body, Target, Transfers

_LOOK_EVERY_S = 0.05


class SequentialStream:
    """One file, streamed from its beginning as often as need be."""

    def __init__(self, open_body: Callable[[], Body], transfers: Transfers, file_bytes: int) -> None:
        self._open_body = open_body
        self._transfers = transfers
        self._file_bytes = file_bytes
        self._grace_s = transfers.wire.patience.grace_s
        self._changed = threading.Condition()
        self._waiting: list[int] = []
        self._is_busy = False
        self._moved_at_s = time.monotonic()
        self._body: Body | None = None
        self._position = 0
        """Of the stream in the file. Changed only by the reader whose turn it is."""

    def offer(self, body: Body) -> None:
        """Take a body that has just begun, unless there is a stream already."""
        with self._changed:
            if self._body is None and not self._is_busy and not self._transfers.stopped.is_set():
                self._body, self._position = body, 0
                return
        body.drop()

    def read(self, target: Target) -> None:
        """Fill ``target`` when the stream has come to it.

        Raises:
            TransientError, HubError: as :meth:`~fastload._store.hub.body.Body.pour`.
        """
        with self._turn(target.offset):
            body = self._reach(target.offset)
            try:
                with self._transfers.watch(body):
                    body.skip(target.offset - self._position)
                    body.pour(target)
            except BaseException:
                self._hang_up()
                raise
            self._position = target.offset
            if target.offset == self._file_bytes:
                body.finish()
                self._body, self._position = None, 0

    def _reach(self, offset: int) -> Body:
        """The stream, at ``offset`` or before it."""
        if self._position > offset:
            self._hang_up()
        if self._body is None:
            self._body = self._open_body()
        return self._body

    def _hang_up(self) -> None:
        if self._body is not None:
            self._body.drop()
        self._body, self._position = None, 0

    def close(self) -> None:
        """Hang up, unless somebody is reading: then that read does."""
        with self._changed:
            if not self._is_busy:
                self._hang_up()

    @contextmanager
    def _turn(self, offset: int) -> Iterator[None]:
        with self._changed:
            self._wait_turn(offset)
            self._is_busy = True
        try:
            yield
        finally:
            with self._changed:
                self._is_busy = False
                self._moved_at_s = time.monotonic()
                if self._transfers.stopped.is_set():
                    self._hang_up()
                self._changed.notify_all()

    def _wait_turn(self, offset: int) -> None:
        since_s = time.monotonic()
        self._waiting.append(offset)
        try:
            while self._is_busy or not self._is_next(offset, since_s):
                self._changed.wait(_LOOK_EVERY_S)
                self._transfers.check()
        finally:
            self._waiting.remove(offset)

    def _is_next(self, offset: int, since_s: float) -> bool:
        if offset == self._position:
            return True
        is_anybody_ahead = any(other >= self._position for other in self._waiting)
        if not is_anybody_ahead:
            return offset == min(self._waiting)
        return time.monotonic() - max(since_s, self._moved_at_s) >= self._grace_s
