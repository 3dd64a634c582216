"""Readers that prove what they read: wrappers with the reader's own protocol.

The thread that read a block digests it, while it is in its cache. With block digests nothing goes on before it is
proven: a wrong block is read once more past the page cache, then asked of a better source, and else ends the load. So
is one that cannot be read: a bad sector is a wrong block that the disk has noticed itself.
(For digests of whole files see :mod:`~fastload._read.whole_proof`.)
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from blake3 import blake3

from fastload._read.again import read_again
from fastload._read.around import ReaderAround
from fastload._read.blocks import split_blocks
from fastload._read.bounce import BounceBuffers
from fastload._read.file import is_unreadable, open_regular, translate, with_blob
from fastload._read.ledger import Purpose
from fastload._read.populate import detach
from fastload._read.reader import begin_read
from fastload._verify.digest import BLOCK_BYTES, block_digest, block_length, count_blocks
from fastload.errors import IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fastload._read.reader import Attempt, File, Reader
    from fastload._read.tally import ProofTally

    Repair = Callable[["WantedBlock"], bytes | memoryview | None]
    """The bytes of a block from a better source, or None."""

_DAMAGED = "Its copy there is damaged: run fastload verify NAME --repair, or remove it and fetch it again"
_CAME_WRONG = "It came wrong from the hub: check HF_ENDPOINT and the proxies on the way, or fetch it from elsewhere"


@dataclass(frozen=True, slots=True)
class WantedBlock:
    """A block that should be there."""

    file: File
    index: int
    length: int
    digests: Sequence[str]
    """Of all blocks of the file."""

    @property
    def digest(self) -> str:
        """What it must have."""
        return self.digests[self.index]


@dataclass(frozen=True, slots=True)
class BlockCheck:
    """What the blocks of one read must be, for whoever digests them elsewhere than on this CPU."""

    path: str
    offset: int
    """Where in the file the first block begins."""
    digests: Sequence[str]
    mend: Callable[[int, str], memoryview]
    """The right bytes of a block, by its number in ``digests``, that was found to have another digest; or it raises."""
    passed: Callable[[], None]
    """Is told that all of them are right."""


@dataclass(frozen=True, slots=True)
class ProofTell:
    """Who is told of the proving, and what those share who prove."""

    tally: ProofTally
    hashing: Callable[[], AbstractContextManager[None]]
    """Entered while bytes are digested."""
    queueing: Callable[[], AbstractContextManager[None]]
    """Entered while a thread waits for its turn to digest."""
    is_stopped: Callable[[], bool]
    """True once nobody waits for the bytes any more."""
    bounces: BounceBuffers = field(default_factory=BounceBuffers)
    """Where the bytes pass through that are read only to be digested."""


class BlockProof(ReaderAround):
    """Lets only blocks through that have their digests."""

    def __init__(self, reader: Reader, file: File, digests: Sequence[str], repair: Repair, tell: ProofTell) -> None:
        super().__init__(reader)
        self._file = file
        self._digests = digests
        self._repair = repair
        self._tell = tell

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`; a block that nothing mends is an ``IntegrityError``."""
        is_proven = self._read(offset, buffers)
        for index, pieces in self._split(offset, buffers):
            if not is_proven:
                self._prove(index, pieces)
            self._tell.tally.count(verified=1)

    def read_unproven(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """As :meth:`read_into`, but what was read is left to :meth:`check`."""
        self._read(offset, buffers)

    def begin(self, offset: int, buffer: memoryview) -> Attempt | None:
        """See :func:`~fastload._read.reader.begin_read`; :meth:`check` or :meth:`prove_alone` is left to do."""
        return begin_read(self._reader, offset, buffer)

    def prove_alone(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Let what was read through as :meth:`read_into` does; all CPUs digest for the one thread that asks."""
        for index, pieces in self._split(offset, buffers):
            with self._tell.hashing():
                found = self._digest(index, pieces, threads=blake3.AUTO)
            if found != self._digests[index]:
                self._mend(index, pieces, found)
            self._tell.tally.count(verified=1)

    def _split(self, offset: int, buffers: Sequence[memoryview]) -> Iterator[tuple[int, list[memoryview]]]:
        return split_blocks(offset, buffers, self._file.identity.size)

    def _read(self, offset: int, buffers: Sequence[memoryview]) -> bool:
        """True if the bytes are proven, since some could not be read: each block was had apart then."""
        try:
            self._reader.read_into(offset, buffers)
        except StoreError as exc:
            for index, pieces in self._split(offset, buffers):
                self._replace(index, pieces, exc)
            return True
        return False

    def _replace(self, index: int, pieces: Sequence[memoryview], error: StoreError) -> None:
        """Have a block from elsewhere than from where ``error`` came; raise that where nobody has it."""
        block = (
            find_right(self._wanted(index, pieces), self._repair, self._tell.tally) if is_unreadable(error) else None
        )
        if block is None:
            raise error
        self._put(block, pieces)

    def _prove(self, index: int, pieces: Sequence[memoryview]) -> None:
        with self._tell.hashing():
            found = self._digest(index, pieces)
        if found != self._digests[index]:
            self._mend(index, pieces, found)

    def check(self, offset: int, length: int) -> BlockCheck:
        """What ``length`` bytes from ``offset`` on must be; both are at borders of blocks, or of the file."""
        first = offset // BLOCK_BYTES
        digests = self._digests[first : count_blocks(offset + length)]

        def mend(number: int, found: str) -> memoryview:
            index = first + number
            nbytes = block_length(index, self._file.identity.size)
            wanted = WantedBlock(self._file, index, nbytes, self._digests)
            return mend_block(wanted, found, self._repair, self._tell.tally)

        def passed() -> None:
            self._tell.tally.count(verified=len(digests), on_device=len(digests))

        return BlockCheck(self._file.path, offset, digests, mend, passed)

    def _digest(self, index: int, pieces: Sequence[memoryview], threads: int = 1) -> str:
        hasher = blake3(max_threads=threads)
        for piece in pieces:
            hasher.update(piece)
        return hasher.hexdigest()

    def _mend(self, index: int, pieces: Sequence[memoryview], found: str) -> None:
        _scatter(mend_block(self._wanted(index, pieces), found, self._repair, self._tell.tally), pieces)

    def _wanted(self, index: int, pieces: Sequence[memoryview]) -> WantedBlock:
        return WantedBlock(self._file, index, sum(map(len, pieces)), self._digests)

    def _put(self, block: memoryview, pieces: Sequence[memoryview]) -> None:
        """Let ``pieces`` be ``block``, whatever became of them."""
        _scatter(block, pieces)


class MappedBlockProof(BlockProof):
    """For buffers that map the file: what is digested is read apart, since touching a page may be a SIGBUS.

    A block that is mended is written to the mapping, whose page becomes this process's own by that.
    """

    def __init__(self, reader: Reader, file: File, digests: Sequence[str], repair: Repair, tell: ProofTell) -> None:
        super().__init__(reader, file, digests, repair, tell)
        self._descriptor = open_regular(file.path)

    def _prove(self, index: int, pieces: Sequence[memoryview]) -> None:
        try:
            super()._prove(index, pieces)
        except StoreError as exc:
            self._replace(index, pieces, exc)

    def _put(self, block: memoryview, pieces: Sequence[memoryview]) -> None:
        # A block begins with a page, and the page in which it ends is in no other block.
        for piece in pieces:
            detach(piece)
        super()._put(block, pieces)

    def _digest(self, index: int, pieces: Sequence[memoryview], threads: int = 1) -> str:
        hashed = blake3(max_threads=threads)
        length, path = sum(map(len, pieces)), self._file.path
        try:
            for piece in self._tell.bounces.read_pieces(self._descriptor, index * BLOCK_BYTES, length, path):
                hashed.update(piece)
        except OSError as exc:
            raise translate(path, exc) from exc
        return hashed.hexdigest()

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        super().close()
        os.close(self._descriptor)


def explain_damage(path: str) -> str:
    """What to do about the wrong file at ``path``; one that is not absolute is the hub's, and nowhere stored."""
    return with_blob(path, _DAMAGED) if os.path.isabs(path) else _CAME_WRONG


def mend_block(wanted: WantedBlock, found: str, repair: Repair, tally: ProofTally) -> memoryview:
    """The right bytes of a block that was read as something else.

    Raises:
        IntegrityError: nobody has them.
    """
    block = find_right(wanted, repair, tally)
    if block is not None:
        return block
    path, offset = wanted.file.path, wanted.index * BLOCK_BYTES
    raise IntegrityError(path, offset, f"BLAKE3 {found}", wanted.digest, explain_damage(path), block=wanted.index)


def find_right(wanted: WantedBlock, repair: Repair, tally: ProofTally) -> memoryview | None:
    """The right bytes of a block: from behind the page cache, or from a better source; None: neither has them."""
    tally.ledger.count_reread(wanted.file.path, [wanted.index])
    offset, count = wanted.index * BLOCK_BYTES, partial(tally.note, Purpose.AGAIN)
    block: bytes | memoryview | None = read_again(wanted.file, offset, wanted.length, count)
    if block is not None and block_digest(block) == wanted.digest:
        return memoryview(block)
    block = repair(wanted)
    if block is not None and block_digest(block) == wanted.digest:
        tally.ledger.count_repaired(wanted.file.path, [wanted.index])
        return memoryview(block)
    return None


def _scatter(block: memoryview, pieces: Sequence[memoryview]) -> None:
    at = 0
    for piece in pieces:
        piece[:] = block[at : at + len(piece)]
        at += len(piece)
