"""What takes the place of a damaged stored file: the right blocks as they come, and at the end what is right of it.

A block goes to its place in a file of holes at once, on the file system of the damaged one: what waits for the end of a
load takes no memory (docs/adr/0027). The file has no name before the end, where the file system can do that.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.mend.stored_file import MENDED_STEM, look_like
from fastload._read.file import identify, open_regular, read_fully, read_stored
from fastload._store.admit.part import Part
from fastload._store.filesystem import check_one_mount, make_folder, writing
from fastload._store.replacing import Replacement
from fastload._verify.digest import BLOCK_BYTES, block_length, blocks_of
from fastload.errors import FastloadError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._read.proof import WantedBlock

    Rest = Callable[[WantedBlock, memoryview], memoryview]
    """The right bytes of a block, of which these were read; raises where nobody has them."""


class MendedFile:
    """The copy of one file, while it is made, by one thread at a time."""

    def __init__(self, path: str, damaged: WantedBlock, scratch: str, *, may_differ: bool) -> None:
        """Begin it.

        Args:
            path: whose place it takes.
            damaged: a block of it that was found wrong.
            scratch: a folder on its mount.
            may_differ: the file may be another one at the end, of the same content: another load may have mended it.

        Raises:
            StoreError: it cannot be made there.
        """
        make_folder(scratch)
        check_one_mount(os.path.dirname(path), scratch)
        self._damaged = damaged
        self._may_differ = may_differ
        self._copy = Replacement(path, scratch, stem=MENDED_STEM, is_unnamed=True)
        self._part = Part(self._copy.file.fileno(), past_cache=False)
        self._there: set[int] = set()

    def put(self, index: int, block: memoryview) -> None:
        """Take the right bytes of a block.

        Raises:
            StoreError: there is no room, or it may not be written.
        """
        with writing(self._copy.path):
            self._part.write(index * BLOCK_BYTES, block)
        self._there.add(index)

    def find(self, index: int) -> memoryview | None:
        """What was put there; None: nothing was, or it cannot be read."""
        if index not in self._there:
            return None
        block = memoryview(bytearray(block_length(index, self._damaged.file.identity.size)))
        with suppress(OSError, FastloadError):
            read_fully(self._part.descriptor, index * BLOCK_BYTES, [block], path=self._copy.path)
            return block
        return None

    def publish(self, rest: Rest) -> None:
        """Let it take the place of the file, once it has the other blocks of that.

        Raises:
            StoreError: the file cannot be read, or is another one by now; or as :meth:`put`.
            IntegrityError: another block of it is wrong, too, and nobody has it right.
        """
        self._add_rest(rest)
        with writing(self._copy.path):
            look_like(self._copy.path, self._copy.file)
        self._copy.publish()

    def _add_rest(self, rest: Rest) -> None:
        """Each held to its digest: the load may not have read it, or not have believed what the page cache has."""
        path, seen = self._copy.path, self._damaged.file.identity
        descriptor = open_regular(path)
        try:
            now = identify(os.fstat(descriptor))
            if now.size != seen.size or not (self._may_differ or now == seen):
                raise StoreError(path, "another file is there by now", "Verify it again")
            room = memoryview(bytearray(block_length(0, now.size)))
            for index, offset, length in blocks_of(now.size):
                if index not in self._there:  # what came is not read: it may be what the disk cannot give
                    read_stored(descriptor, offset, room[:length], path)
                    wanted = replace(self._damaged, index=index, length=length)
                    self.put(index, rest(wanted, room[:length]))
        finally:
            os.close(descriptor)

    def discard(self) -> None:
        """Leave the file as it is.

        Raises:
            StoreError: the copy may not be removed.
        """
        self._copy.discard()
