"""A stdout that takes nothing, closed by its reader or full, hides nothing: the exit code says how the work went."""

from __future__ import annotations

import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def stdout_kept() -> Iterator[None]:
    """What stdout refuses meanwhile is lost, and ends nothing; at the end it is an error, unless there is another one.

    Raises:
        OSError: the first refusal; ``BrokenPipeError`` where whoever read has left.
    """
    plain = sys.stdout
    sys.stdout = kept = _Kept(plain)
    try:
        try:
            yield
        except SystemExit:  # --help and --version end so
            kept.check()
            raise
        kept.check()
    finally:
        sys.stdout = plain


def let_go_of(stream: TextIO) -> None:
    """Write to nowhere from now on: else Python would try once more at exit, and complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _Kept(io.TextIOBase):
    """A stream that notes the first refusal of the one below it."""

    def __init__(self, below: TextIO) -> None:
        self._below = below
        self._refusal: OSError | None = None

    def writable(self) -> bool:
        """Of course."""
        return True

    def isatty(self) -> bool:
        """As the stream below."""
        return self._below.isatty()

    def fileno(self) -> int:
        """The descriptor below, for child processes."""
        return self._below.fileno()

    def write(self, text: str) -> int:
        """All of it, or nothing."""
        with self._noting():
            self._below.write(text)
        return len(text)

    def flush(self) -> None:
        """What was written so far."""
        with self._noting():
            self._below.flush()

    def check(self) -> None:
        """Raise what was refused, if anything was."""
        self.flush()
        if self._refusal is not None:
            raise self._refusal

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            self._refusal = self._refusal or exc
            let_go_of(self._below)
