"""Proving a file by a digest of the whole, which is a serial chain: blocks are digested in the order of the file.

A thread that has read a block waits for its turn with it, so that no byte is read a second time; other files go on
meanwhile. What needs no turn, the digests of blocks that a manifest is made of, is taken before: the chain is as long
as a file, however many CPUs there are. The last block's thread compares: whoever waits for it does not get it before
that.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from fastload._read.around import ReaderAround
from fastload._read.blocks import cut, read_block, split_blocks
from fastload._read.file import open_regular, read_stored
from fastload._read.ledger import Purpose
from fastload._read.proof import explain_damage
from fastload._verify.digest import BLOCK_BYTES, ContentHash, block_digest, block_length, count_blocks
from fastload._verify.manifest import ManifestFile
from fastload.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from fastload._format.header import Header
    from fastload._read.proof import ProofTell
    from fastload._read.reader import File, Reader
    from fastload._verify.statement import SignedFile

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class WholeDigest:
    """What a whole file must have; one digest of it at least."""

    sha256: str | None
    git_sha1: str | None
    header: Header
    """What was believed before the file was proven: it must have been read as it is there."""
    signed: SignedFile | None = None


def check_header(path: str, believed: Header, digest: str) -> None:
    """Raise ``IntegrityError`` where ``digest``, of a header that was proven, is not that of what was ``believed``."""
    if believed.digest != digest:
        found, hint = (
            f"another header when it was parsed, with BLAKE3 {believed.digest}",
            "Memory may be bad: load again",
        )
        raise IntegrityError(path, 0, found, f"{digest}, as the proven file has it", hint)


class _Block(NamedTuple):
    """One that was read."""

    number: int
    pieces: Sequence[memoryview]
    digest: str


class WholeProof(ReaderAround):
    """Digests one file as it passes; see :class:`~fastload._read.reader.Reader`."""

    def __init__(
        self,
        reader: Reader,
        file: File,
        expected: WholeDigest,
        unplanned: AbstractSet[int],
        tell: ProofTell,
        proven: Callable[[ManifestFile], None],
    ) -> None:
        """``unplanned``: blocks that nobody else reads, such as one with nothing but the header.

        ``proven`` is called with all digests of the file, once it is right.
        """
        super().__init__(reader)
        self._file = file
        self._expected = expected
        self._unplanned = unplanned
        self._tell = tell
        self._proven = proven
        # A mapping is not touched for that: the file behind it may have become shorter.
        self._is_mapped = reader.name == "mmap"
        self._descriptor = open_regular(file.path) if self._is_mapped else -1
        self._content = ContentHash(file.identity.size, expected)
        self._header = blake3()
        self._blocks: list[str] = []
        self._count = count_blocks(file.identity.size)
        try:
            self._take_unplanned()
        except BaseException:  # nobody else has the reader yet
            self.close()
            raise
        self._turn = threading.Condition()
        self._next = len(self._blocks)
        """Whose turn it is; what follows a block and is unplanned belongs to the turn of that block."""

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`; a file that is not what it should be is an ``IntegrityError``."""
        self._reader.read_into(offset, buffers)
        split = split_blocks(offset, buffers, self._file.identity.size)
        blocks = (self._digest(index, pieces) for index, pieces in split)
        # What is mapped is read apart, each block when it is wanted: all of them would take much memory.
        for block in blocks if self._is_mapped else list(blocks):
            if not self._wait_turn(block.number):
                return  # nobody wants the bytes any more
            with self._tell.hashing():
                self._take(block)
                self._take_unplanned()
            self._pass_turn()

    def _digest(self, index: int, pieces: Sequence[memoryview]) -> _Block:
        with self._tell.hashing():
            content = [self._read_block(index)] if self._is_mapped else pieces
            return _Block(index, content, block_digest(*content))

    def _wait_turn(self, index: int) -> bool:
        with self._tell.queueing(), self._turn:
            while self._next != index:
                if self._tell.is_stopped():
                    return False
                self._turn.wait(_LOOK_S)
        return True

    def _pass_turn(self) -> None:
        with self._turn:
            self._next = len(self._blocks)
            self._turn.notify_all()

    def _take(self, block: _Block) -> None:
        """The next block of the file; only the thread whose turn it is comes here."""
        for piece in block.pieces:
            self._content.update(piece)
        for piece in cut(block.pieces, 0, self._expected.header.data_start - block.number * BLOCK_BYTES):
            self._header.update(piece)
        if block.number + 1 == self._count:
            self._compare([*self._blocks, block.digest])
        self._blocks.append(block.digest)

    def _take_unplanned(self) -> None:
        """May be most of the file, where another rank of a group read it before."""
        while len(self._blocks) < self._count and len(self._blocks) in self._unplanned and not self._tell.is_stopped():
            index = len(self._blocks)
            content = self._read_block(index)
            if self._is_mapped:  # what the mapping does not give is not counted below
                self._tell.tally.note(Purpose.PROOF, len(content))
            self._take(_Block(index, [content], block_digest(content)))

    def _compare(self, blocks: list[str]) -> None:
        wrong = self._content.find_difference(self._expected)
        if wrong is not None:
            raise wrong.as_error(self._file.path, explain_damage(self._file.path), is_whole=True)
        check_header(self._file.path, self._expected.header, self._header.hexdigest())
        self._tell.tally.count(verified=len(blocks))
        size = self._file.identity.size
        self._proven(ManifestFile("", size, self._content.sha256, self._content.git_sha1, tuple(blocks)))

    def _read_block(self, index: int) -> memoryview:
        offset = index * BLOCK_BYTES
        length = block_length(index, self._file.identity.size)
        if not self._is_mapped:
            return read_block(self._reader, offset, length)
        block = memoryview(bytearray(length))
        read_stored(self._descriptor, offset, block, self._file.path)
        return block

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        super().close()
        if self._is_mapped:
            os.close(self._descriptor)
