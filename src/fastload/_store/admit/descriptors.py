"""Descriptors that threads use while their owner may let go of them."""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Descriptors:
    """Closed once the owner has let go and the last user is done.

    A number that is closed under a thread means another file a moment later, and the thread would write into that.
    """

    def __init__(self, path: str, *numbers: int) -> None:
        self._path = path
        self._numbers = frozenset(numbers)
        self._lock = threading.Lock()
        self._users = 0
        self._is_released = False

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Inside of it they stay open.

        Raises:
            StoreError: the owner has let go already.
        """
        with self._lock:
            if self._is_released:
                raise StoreError(self._path, "was let go of while it was in use", "Try again")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close_unused()

    def add(self, number: int) -> None:
        """Close this one too, in the end."""
        with self._lock:
            self._numbers |= {number}

    def release(self) -> None:
        """Let go; to do it twice does no harm."""
        with self._lock:
            self._is_released = True
            self._close_unused()

    def _close_unused(self) -> None:
        if not self._is_released or self._users:
            return
        for number in self._numbers:
            with contextlib.suppress(OSError):  # an error of a close that follows a sync, or an error, says nothing new
                os.close(number)
        self._numbers = frozenset()
