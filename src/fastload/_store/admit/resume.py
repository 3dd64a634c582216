"""A reader that reads only what is not here already: what an interrupted load had staged need not be fetched again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround
from fastload._read.blocks import cut, runs_of, split_blocks
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._read.reader import Reader
    from fastload._store.admit.incoming import Incoming


class ResumedReader(ReaderAround):
    """Gives the blocks that a file on its way in has, and has others read: a wrapper with the reader's own protocol.

    It stands below the proof, which holds both to what they should be.
    """

    def __init__(self, reader: Reader, incoming: Incoming, file_bytes: int, given: Callable[[int], None]) -> None:
        """``given`` is told how much was here, be it right or not."""
        super().__init__(reader)
        self._incoming = incoming
        self._file_bytes = file_bytes
        self._given = given

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`; ``offset`` is that of a block."""
        missing: list[int] = []
        for index, pieces in split_blocks(offset, buffers, self._file_bytes):
            if self._incoming.give(index, pieces):
                self._given(sum(map(len, pieces)))
            else:
                missing.append(index)
        for first, end in runs_of(missing):
            # To the end of the buffers, where it is the file's: a reader that must be aligned wants the room behind it.
            end_bytes = end * BLOCK_BYTES if end * BLOCK_BYTES < self._file_bytes else offset + sum(map(len, buffers))
            begin_bytes = first * BLOCK_BYTES
            self._reader.read_into(begin_bytes, cut(buffers, begin_bytes - offset, end_bytes - offset))
