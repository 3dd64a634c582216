"""A file that is in its place already: nobody knows what wrote it, so it is read and digested like any other."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fastload._read.file import open_regular, read_fully, read_stored
from fastload._read.filedigests import FileDigests
from fastload._store.admit.descriptors import Descriptors
from fastload._store.filesystem import writing
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import FastloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.filedigests import Hashing
    from fastload._verify.difference import Difference, KnownFile
    from fastload._verify.manifest import ManifestFile


class KeptFile:
    """As :class:`~fastload._store.admit.staged.StagedFile`, but every block is there, and nothing is written."""

    def __init__(self, path: str, size: int, known: KnownFile | None = None) -> None:
        """``known``: as :func:`~fastload._store.admit.takeover.open_staged` has it."""
        self.path = path
        self._descriptor = open_regular(path, os.O_NOFOLLOW)
        self._descriptors = Descriptors(path, self._descriptor)
        self._digests = FileDigests(size, self._read_back, known)
        self._given: dict[int, str] = {}

    @property
    def missing_bytes(self) -> int:
        """None."""
        return 0

    def reserve(self) -> None:
        """It has its room."""

    def has_arrived(self, index: int) -> bool:
        """See :class:`~fastload._store.admit.incoming.Incoming`."""
        return self._digests.has(index)

    def recall(self, index: int, block: memoryview, hashing: Hashing = nullcontext) -> bool:
        """Always True; ``block`` is filled where that has to be seen."""
        if self._digests.has(index):
            return True
        with self._descriptors.in_use():
            self._read_back(index * BLOCK_BYTES, block)
            with hashing():
                self._digests.add(index, block_digest(block), block)
        return True

    @property
    def has_given(self) -> bool:
        """True if :meth:`give` has given anything."""
        return bool(self._given)

    @property
    def is_proven(self) -> bool:
        """False: its name says what it should be, and nobody what it is."""
        return False

    def vouch(self, blocks: Sequence[str]) -> None:
        """It has its name: whoever looks for it takes it for what that says, and proves it."""

    def give(self, index: int, pieces: Sequence[memoryview]) -> bool:
        """See :class:`~fastload._store.admit.incoming.Incoming`; False where it cannot be read."""
        try:
            with self._descriptors.in_use():
                read_fully(self._descriptor, index * BLOCK_BYTES, pieces, path=self.path)
        except (OSError, FastloadError):
            return False
        self._given[index] = block_digest(*pieces)
        return True

    def put(self, index: int, block: memoryview, hashing: Hashing = nullcontext) -> None:
        """What was given so need not be recalled. Nothing is written."""
        given = self._given.get(index)
        if given is None or self._digests.has(index):
            return
        with self._descriptors.in_use(), hashing():
            if given == block_digest(block):
                self._digests.add(index, given, block)

    def _read_back(self, offset: int, block: memoryview) -> None:
        read_stored(self._descriptor, offset, block, self.path)

    def finish(self, path: str) -> ManifestFile:
        """The digests of the whole. Who wrote it may not have synced it, so that is done here."""
        with self._descriptors.in_use():
            with writing(self.path):
                os.fsync(self._descriptor)
            return self._digests.finish(path)

    def find_unsigned(self) -> Difference | None:
        """See :class:`~fastload._store.admit.incoming.Incoming`."""
        return self._digests.find_unsigned()

    def publish(self, target: str) -> None:
        """It has its name."""
        self.close()

    def discard(self) -> None:
        """What takes its place will replace it."""
        self.close()

    def close(self) -> None:
        """Let go."""
        self._descriptors.release()
