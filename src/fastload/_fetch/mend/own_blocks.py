"""What is stored of a file that is to be mended, read past the page cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._read.again import read_again
from fastload._read.file import identify, open_regular
from fastload._read.reader import PlainFile
from fastload._store.directory import contained
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable


class OwnBlocks:
    """The blocks of one file."""

    def __init__(self, path: str, take_turn: Callable[[int], None]) -> None:
        """``take_turn``: as :class:`~fastload._fetch.mend.mend_file.FileMender` has it.

        Raises:
            FormatError, StoreError: it is no file.
        """
        descriptor = open_regular(path)
        self._file = PlainFile(path, identify(os.fstat(descriptor)))
        os.close(descriptor)
        self._take_turn = take_turn

    @property
    def size(self) -> int:
        """In bytes."""
        return self._file.identity.size

    def read(self, index: int, length: int) -> memoryview | None:
        """Block ``index``; None where it cannot be read."""
        self._take_turn(length)
        return read_again(self._file, index * BLOCK_BYTES, length)

    def find(self, index: int, length: int, digest: str) -> memoryview | None:
        """Block ``index``, if it has ``digest``."""
        block = self.read(index, length)
        return block if block is not None and block_digest(block) == digest else None


def open_own(place: str, root: str, take_turn: Callable[[int], None]) -> OwnBlocks | None:
    """What is stored at ``place``; None where that is nothing, or not below ``root``, the model's own."""
    try:
        return OwnBlocks(contained(place, root), take_turn)
    except (FormatError, StoreError):
        return None
