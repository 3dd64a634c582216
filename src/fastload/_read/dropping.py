"""A reader that leaves no trace in the page cache: a copy that passes through must not push out what others use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround
from fastload._read.file import open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.reader import File, Reader


class DroppingReader(ReaderAround):
    """Tells the kernel after each read that these bytes are not wanted again: a wrapper with the reader's protocol."""

    def __init__(self, reader: Reader, file: File) -> None:
        super().__init__(reader)
        self._descriptor = open_regular(file.path)

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        self._reader.read_into(offset, buffers)
        os.posix_fadvise(self._descriptor, offset, sum(map(len, buffers)), os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        super().close()
        os.close(self._descriptor)
