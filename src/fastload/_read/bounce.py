"""Bounce buffers: memory through which the bytes of a file pass to be digested, and are not kept."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._address_space import HUGE_PAGE_BYTES, map_anonymous
from fastload._read.file import read_fully

if TYPE_CHECKING:
    from collections.abc import Iterator

BOUNCE_BYTES = HUGE_PAGE_BYTES
"""After each piece a thread waits for its turn in Python; larger ones leave the CPU's cache."""


class BounceBuffers:
    """As many as threads use at once; each serves one file after another, and is one huge page.

    To make fresh pages of 4 KiB took longer than to read and digest what passes through them: in a virtual machine some
    25 µs each, where its host must find the memory too.
    """

    def __init__(self) -> None:
        self._spare: list[memoryview] = []

    def read_pieces(self, descriptor: int, offset: int, length: int, path: str) -> Iterator[memoryview]:
        """``length`` bytes of the file ``path`` from ``offset`` on; each piece is there until the next is asked for.

        Raises:
            OSError: it cannot be read.
            IntegrityError: the file ends before.
            MemoryBudgetError: there is no memory for a buffer.
        """
        with self._lend() as buffer:
            for at in range(0, length, len(buffer)):
                piece = buffer[: length - at]
                read_fully(descriptor, offset + at, [piece], path=path)
                yield piece

    @contextmanager
    def _lend(self) -> Iterator[memoryview]:
        try:
            buffer = self._spare.pop()
        except IndexError:  # others use what there is
            buffer = map_anonymous(BOUNCE_BYTES)
        try:
            yield buffer
        finally:
            self._spare.append(buffer)
