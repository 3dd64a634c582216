"""The digests of one file whose blocks arrive in any order, from any thread.

A block's BLAKE3 needs the block alone; sha256 needs all bytes in order. So whoever brings the block that sha256 waits
for carries it on, over the blocks that came early too: these are read back, from the page cache as a rule. Who has
written an early block past it may wait for its turn, for a moment. Holding early blocks in memory was rejected: a slow
first block would let the rest of a shard pile up.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fastload._verify.digest import BLOCK_BYTES, ContentHash, block_length, count_blocks
from fastload._verify.manifest import ManifestFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from fastload._verify.difference import Difference, KnownFile

    ReadBack = Callable[[int, memoryview], None]
    """Fills memory with the file's bytes from an offset on, all of which have arrived."""
    Hashing = Callable[[], AbstractContextManager[None]]
    """Entered while digests are taken, so that somebody can tell how long that took."""


_TURN_S = 0.25
"""Longer than a read and a write of what comes before; then reading back is cheaper than standing idle."""


class FileDigests:
    """Collects them; complete when all blocks were added."""

    def __init__(self, size: int, read_back: ReadBack, known: KnownFile | None = None) -> None:
        """``known``: with what they will be compared; see :class:`~fastload._verify.digest.ContentHash`."""
        self._size = size
        self._read_back = read_back
        self._blocks: list[str | None] = [None] * count_blocks(size)
        self._content = ContentHash(size, known)
        self._hashed = 0
        self._hashing = threading.Lock()
        self._went_on = threading.Condition()
        self._bounce: memoryview | None = None

    @property
    def is_empty(self) -> bool:
        """True if no block was added."""
        return not any(self._blocks)

    def has(self, index: int) -> bool:
        """True if block ``index`` was added."""
        return self._blocks[index] is not None

    def await_turn(self, index: int) -> None:
        """Wait a moment for all blocks before ``index``, so that this one need not be read back."""
        with self._went_on:
            self._went_on.wait_for(lambda: self._hashed >= index, _TURN_S)

    def add(self, index: int, digest: str, block: memoryview) -> None:
        """Block ``index`` has ``digest``, and can be read back from now on."""
        self._blocks[index] = digest
        # Whoever holds the lock looks again after letting it go, so that no block is left behind by two who pass.
        while self._may_go_on() and self._hashing.acquire(blocking=False):
            try:
                if self._may_go_on():
                    self._hash_next(index, block)
            finally:
                self._hashing.release()
            with self._went_on:
                self._went_on.notify_all()

    def _may_go_on(self) -> bool:
        return self._hashed < len(self._blocks) and self._blocks[self._hashed] is not None

    def _hash_next(self, index: int, block: memoryview) -> None:
        if self._hashed == index:
            self._content.update(block)
        else:
            self._content.update(self._read(self._hashed))
        self._hashed += 1

    def _read(self, index: int) -> memoryview:
        if self._bounce is None:
            self._bounce = memoryview(bytearray(block_length(0, self._size)))
        offset = index * BLOCK_BYTES
        block = self._bounce[: block_length(index, self._size)]
        self._read_back(offset, block)
        return block

    def finish(self, path: str) -> ManifestFile:
        """All digests, as the file ``path`` of a manifest. Every block must have been added."""
        blocks = tuple(block for block in self._blocks if block is not None)
        if len(blocks) != len(self._blocks) or self._hashed != len(blocks):
            raise AssertionError(f"{path}: {self._hashed} of {len(self._blocks)} blocks")
        return ManifestFile(path, self._size, self._content.sha256, self._content.git_sha1, blocks)

    def find_unsigned(self) -> Difference | None:
        """How all blocks differ from what was signed of the file, where no manifest has such digests; None: not."""
        return self._content.find_unsigned()
