"""Readers that tell what they have read: the lowest wrapper, so that what comes from elsewhere does not pass it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround
from fastload._read.file import arrived_before
from fastload._read.reader import begin_read
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._read.choose import Choice
    from fastload._read.reader import Attempt, File, Reader


def counted(choice: Choice, count: Callable[[int], None]) -> Choice:
    """``choice``, each read of which is told to ``count``."""
    return replace(choice, open=lambda file: CountedReader(choice.open(file), file, count))


class CountedReader(ReaderAround):
    """A wrapper with the reader's own protocol; see :class:`~fastload._read.reader.Reader`."""

    def __init__(self, reader: Reader, file: File, count: Callable[[int], object]) -> None:
        super().__init__(reader)
        self._file_bytes = file.identity.size
        self._count = count

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        try:
            self._reader.read_into(offset, buffers)
        except StoreError as exc:
            self._count(arrived_before(exc))
            raise
        self._count(min(sum(map(len, buffers)), self._file_bytes - offset))

    def begin(self, offset: int, buffer: memoryview) -> Attempt | None:
        """See :func:`~fastload._read.reader.begin_read`."""
        attempt = begin_read(self._reader, offset, buffer)
        return attempt and _Counted(attempt, self._count, min(len(buffer), self._file_bytes - offset))


class _Counted:
    """See :class:`~fastload._read.reader.Attempt`; one that brought less is read once more, and counted then."""

    __slots__ = ("_attempt", "_count", "_nbytes")

    def __init__(self, attempt: Attempt, count: Callable[[int], object], nbytes: int) -> None:
        self._attempt = attempt
        self._count = count
        self._nbytes = nbytes

    def finish(self) -> bool:
        is_whole = self._attempt.finish()
        if is_whole:
            self._count(self._nbytes)
        return is_whole

    def abandon(self) -> None:
        self._attempt.abandon()
