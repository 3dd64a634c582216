"""Readers that tell what they have read: the lowest wrapper, so that what comes from elsewhere does not pass it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround
from fastload._read.reader import BackgroundReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._read.choose import Choice
    from fastload._read.reader import Attempt, File, Reader


def counted(choice: Choice, count: Callable[[int], None]) -> Choice:
    """``choice``, each read of which is told to ``count``."""
    return replace(choice, open=lambda file: CountedReader(choice.open(file), file, count))


class CountedReader(ReaderAround):
    """A wrapper with the reader's own protocol; see :class:`~fastload._read.reader.Reader`."""

    def __init__(self, reader: Reader, file: File, count: Callable[[int], None]) -> None:
        super().__init__(reader)
        self._file_bytes = file.identity.size
        self._count = count

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.read_into(offset, buffers)
        self._count(min(sum(map(len, buffers)), self._file_bytes - offset))

    def begin(self, offset: int, buffer: memoryview) -> Attempt | None:
        """See :class:`~fastload._read.reader.BackgroundReader`; nobody can call it back, so that it counts at once."""
        attempt = self._reader.begin(offset, buffer) if isinstance(self._reader, BackgroundReader) else None
        if attempt is not None:
            self._count(min(len(buffer), self._file_bytes - offset))
        return attempt
