"""Digests of blocks and of whole files.

A block is 4 MiB of a file, the last one shorter; its digest is BLAKE3 (https://github.com/BLAKE3-team/BLAKE3-specs),
which one core computes faster than most storage reads and a GPU faster than PCIe brings. A whole file has the digests
that hubs publish: sha256 for large files, git's sha1 for small ones. These are serial: a file is hashed in order.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from fastload._verify.difference import find_difference
from fastload._verify.signed_hash import SignedHash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._verify.difference import Difference, Digests, KnownFile

BLOCK_BYTES = 4 << 20  # 4 MiB
SMALL_FILE_BYTES = 64 << 20  # 64 MiB
"""Hubs refuse to keep larger files in git itself (10 MB on huggingface.co): sha1 of weights would be wasted time."""

Buffer = bytes | bytearray | memoryview


def block_digest(*pieces: Buffer) -> str:
    """The BLAKE3 of one block, as 64 hex digits; it may lie in several pieces."""
    digest = blake3()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def count_blocks(file_bytes: int) -> int:
    """How many blocks a file has; an empty one has none."""
    return -(-file_bytes // BLOCK_BYTES)


def block_length(index: int, file_bytes: int) -> int:
    """How many bytes block ``index`` of a file has: the last one is shorter."""
    return min(BLOCK_BYTES, file_bytes - index * BLOCK_BYTES)


class Block(NamedTuple):
    """Where a block lies in its file."""

    number: int
    offset: int
    length: int


def blocks_of(file_bytes: int) -> Iterator[Block]:
    """The blocks of a file, in order."""
    for index in range(count_blocks(file_bytes)):
        yield Block(index, index * BLOCK_BYTES, block_length(index, file_bytes))


class ContentHash:
    """sha256 and git's sha1 of a file of ``size`` bytes, whose bytes are given in order."""

    def __init__(self, size: int, known: KnownFile | None = None) -> None:
        """``known``: what its bytes are compared with; git's sha1 of a large file is taken only where that is known."""
        signed = None if known is None else known.signed
        self._sha256 = hashlib.sha256()
        self._git_sha1 = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        self._is_of_git = size <= SMALL_FILE_BYTES or (known is not None and known.git_sha1 is not None)
        self._signed = None if signed is None else SignedHash(signed)

    def update(self, content: Buffer) -> None:
        """The next bytes of the file."""
        self._sha256.update(content)
        if self._is_of_git:
            self._git_sha1.update(content)
        if self._signed is not None:
            self._signed.update(memoryview(content))

    def find_difference(self, known: Digests) -> Difference | None:
        """How all bytes so far differ from what is ``known`` of the file, or was signed of it; None: they do not."""
        return find_difference(known, self) or self.find_unsigned()

    def find_unsigned(self) -> Difference | None:
        """How all bytes so far differ from what was signed; None: they do not, or nothing was."""
        return None if self._signed is None else self._signed.find_difference()

    @property
    def sha256(self) -> str:
        """Of all bytes so far, as hex."""
        return self._sha256.hexdigest()

    @property
    def git_sha1(self) -> str | None:
        """Of all bytes so far, as hex; None for a file too large for git to hold, as a rule: a hub keeps it as LFS."""
        return self._git_sha1.hexdigest() if self._is_of_git else None
