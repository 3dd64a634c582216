"""Whose turn it is to take tensors of a stream."""

from __future__ import annotations

import threading

from fastload.errors import UsageError


class Turn:
    """``with`` it, one caller takes a tensor: two that took the same position would get the same one, nobody the next.

    Raises:
        UsageError: somebody does already.
    """

    # Not of contextlib: a generator for each tensor costs more than what it would hold.

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Whoever has it keeps others from taking, and waits for who does."""
        self._is_taken = False

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            raise _already_taken()
        if self._is_taken:  # the same thread, from within: a progress callback, a signal's handler
            self.lock.release()
            raise _already_taken()
        self._is_taken = True

    def __exit__(self, *_: object) -> None:
        self._is_taken = False
        self.lock.release()


def _already_taken() -> UsageError:
    what = "this stream is being asked for a tensor already, by another thread or from within"
    return UsageError(what, "Let one thread take the tensors and pass them on, or open a stream for each")
