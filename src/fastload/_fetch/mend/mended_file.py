"""What takes the place of a damaged stored file: the right blocks as they come, and at the end what is right of it.

A block goes to its place in a file of holes at once, on the file system of the damaged one. So a load that mends all
of a model takes no more memory than one that mends a block, and no more of the disk than the copy needs anyway.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from fastload._fetch.mend.stored_file import look_like
from fastload._read.file import open_regular, read_fully, translate
from fastload._store.admit.part import Part
from fastload._store.filesystem import make_folder, writing
from fastload._store.replacing import Replacement
from fastload._verify.digest import BLOCK_BYTES, block_length, blocks_of
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable


class MendedFile:
    """The copy of one file, while it is made. Threads may put blocks into it."""

    def __init__(self, path: str, nbytes: int, scratch: str) -> None:
        """``nbytes``: of the file at ``path``; ``scratch``: a folder on its file system. Raises: as :meth:`put`."""
        make_folder(scratch)
        self._nbytes = nbytes
        self._copy = Replacement(path, scratch)
        self._part = Part(self._copy.file.fileno(), past_cache=False)
        self._there: set[int] = set()

    def put(self, index: int, block: bytes | memoryview) -> None:
        """Take the right bytes of a block.

        Raises:
            StoreError: there is no room, or it may not be written.
        """
        with writing(self._copy.path):
            self._part.write(index * BLOCK_BYTES, memoryview(block))
        self._there.add(index)

    def find(self, index: int) -> memoryview | None:
        """What was put there; None: nothing was, or it cannot be read."""
        if index not in self._there:
            return None
        block = memoryview(bytearray(block_length(index, self._nbytes)))
        with suppress(OSError):
            read_fully(self._part.descriptor, index * BLOCK_BYTES, [block], path=self._copy.path)
            return block
        return None

    def publish(self, count: Callable[[int], object]) -> None:
        """Let it take the place of the file, once it has the other blocks of that; ``count`` is told what was read.

        Raises:
            StoreError: the file cannot be read, or is another one by now; or as :meth:`put`.
        """
        self._add_rest(count)
        with writing(self._copy.path):
            look_like(self._copy.path, self._copy.file)
        self._copy.publish()

    def _add_rest(self, count: Callable[[int], object]) -> None:
        path = self._copy.path
        descriptor = open_regular(path)
        try:
            if os.fstat(descriptor).st_size != self._nbytes:
                raise StoreError(path, "another file is there by now", "Load it again")
            for index, offset, length in blocks_of(self._nbytes):
                if index not in self._there:  # what came is not read: it may be what the disk cannot give
                    block = memoryview(bytearray(length))
                    _read_stored(descriptor, offset, block, path)
                    count(length)
                    self.put(index, block)
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Leave the file as it is. Raises: as :meth:`put`."""
        self._copy.discard()


def _read_stored(descriptor: int, offset: int, block: memoryview, path: str) -> None:
    try:
        read_fully(descriptor, offset, [block], path=path)
    except OSError as exc:
        raise translate(path, exc) from exc
