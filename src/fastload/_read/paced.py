"""Readers that wait before each read, so that a load leaves others their share of a line or a mount."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._read.choose import Choice
    from fastload._read.reader import File, Reader

    Wait = Callable[[int], None]
    """Returns when so many bytes may be read."""


def paced(choice: Choice, wait: Wait) -> Choice:
    """``choice``, each read of which waits for its turn; how many at once the disk wants cannot be told by them."""

    def open_paced(file: File) -> PacedReader:
        return PacedReader(choice.open(file), file.identity.size, wait)

    reason = f"{choice.reason}; held to max_rate"
    return replace(choice, open=open_paced, reason=reason, is_tunable=False, is_in_memory=False, is_paced=True)


class PacedReader(ReaderAround):
    """A wrapper with the reader's own protocol; see :class:`~fastload._read.reader.Reader`."""

    def __init__(self, reader: Reader, file_bytes: int, wait: Wait) -> None:
        super().__init__(reader)
        self._file_bytes = file_bytes
        self._wait = wait

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._wait(min(sum(map(len, buffers)), self._file_bytes - offset))
        self._reader.read_into(offset, buffers)
