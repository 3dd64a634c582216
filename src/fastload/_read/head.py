"""The beginning of a shard: its header, which is proven, where it can be, before anything in it is believed.

What proves it is the digest of the block around it: 4 MiB are read for a few KiB of header.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from blake3 import blake3

from fastload._budget import check_json_room
from fastload._format.header import LENGTH_BYTES, Header, parse_header, parse_header_length
from fastload._read.bounce import BounceBuffers
from fastload._read.file import advise, identify, is_unreadable, open_regular, read_proven, translate
from fastload._read.proof import WantedBlock
from fastload._read.reader import PlainFile
from fastload._verify.digest import BLOCK_BYTES, block_length, count_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._format.checkpoint import FileIdentity

_FIRST_READ_BYTES = 256 << 10  # 256 KiB: length and header of most shards in one read


class ProveBlock(Protocol):
    """Proves the blocks that headers lie in; it is told the file's path and identity, and the block's number."""

    def find_digests(self, path: str, identity: FileIdentity) -> Sequence[str] | None:
        """The digests that the file's blocks must have; None where nothing is known of it.

        Raises:
            IntegrityError: the file cannot be the one that is known.
        """

    def mend(self, wanted: WantedBlock, found: str) -> memoryview:
        """The right bytes of a block of which those with the digest ``found`` were read.

        Raises:
            IntegrityError: nobody has them.
        """

    def __call__(self, path: str, identity: FileIdentity, index: int, block: memoryview) -> bool:
        """Prove the bytes of ``block``, or mend them in place; False where nothing is known of them.

        Raises:
            IntegrityError: they are wrong, and nobody else has them.
        """


@dataclass(frozen=True, slots=True)
class Head:
    """A header, proven if it can be, and not parsed yet."""

    path: str
    raw: bytes
    """The JSON."""
    identity: FileIdentity
    lost_bytes: int
    """Of blocks that could not be read: they came from elsewhere."""

    def parse(self) -> Header:
        """What it spells.

        Raises:
            FormatError: it is malformed.
            MemoryBudgetError: to parse it takes more memory than there is.
        """
        return parse_header(self.raw, path=self.path, file_bytes=self.identity.size)


class HeadReader:
    """Reads the heads of files, of several at once where threads call it."""

    def __init__(self, prove: ProveBlock | None = None) -> None:
        """``prove`` is asked of each block that a header lies in, before anything in it is believed; may mend it."""
        self._prove = prove
        self._bounces = BounceBuffers()

    def read(self, path: str) -> Head:
        """The head of the shard ``path``; nothing is allocated before its length is known to be sane, and to fit.

        Args:
            path: absolute.

        Raises:
            FormatError: its length is wrong.
            StoreError: it cannot be read.
            IntegrityError: what ``prove`` raises.
            MemoryBudgetError: to parse it would take more memory than there is.
        """
        with self._begin(path) as start:
            return start.finish(start.find_end())

    def read_short(self, path: str) -> Head | None:
        """The same, of a header that ends in the first block; None for another. Raises: as :meth:`read`."""
        with self._begin(path) as start:
            end = start.find_end()
            return start.finish(end) if end <= BLOCK_BYTES else None

    @contextmanager
    def _begin(self, path: str) -> Iterator[_Start]:
        descriptor = open_regular(path)
        try:
            _read_nothing_ahead(descriptor)
            start = _Start(descriptor, path, identify(os.fstat(descriptor)), self._prove)
            if self._prove is None:
                start.content += os.pread(descriptor, _FIRST_READ_BYTES, 0)
            else:
                start.prove_block(self._prove, self._bounces)
            yield start
        except OSError as exc:
            raise translate(path, exc) from exc
        finally:
            os.close(descriptor)


def read_header(path: str, prove: ProveBlock | None = None) -> tuple[Header, FileIdentity]:
    """The header of the shard ``path``; see :class:`HeadReader`."""
    head = HeadReader(prove).read(path)
    return head.parse(), head.identity


def count_head_bytes(header: Header, *, is_proven: bool) -> int:
    """What of a file is read for its ``header``: whole blocks where these are proven.

    Of a first read that ended beyond the header, the rest is not counted: it is in the page cache for the weights.
    """
    if not is_proven:
        return header.data_start
    return min(header.file_bytes, count_blocks(header.data_start) * BLOCK_BYTES)


@dataclass(slots=True)
class _Start:
    """The start of a file, as far as it was read."""

    descriptor: int
    path: str
    identity: FileIdentity
    prove: ProveBlock | None
    content: bytearray = field(default_factory=bytearray)
    lost_bytes: int = 0

    def prove_block(self, prove: ProveBlock, bounces: BounceBuffers) -> None:
        """Read and prove the first block, by way of ``bounces``, and keep of it what the header needs.

        What cannot be read is as good as wrong: it is read once more, as a block that may be mended.
        """
        block_bytes = block_length(0, self.identity.size)
        digests = prove.find_digests(self.path, self.identity) if block_bytes else None
        found = None if digests is None else self._pass_block(block_bytes, bounces)
        if found is None:
            self.content.clear()
            self.extend(block_bytes)
        elif digests is not None and found != digests[0]:
            wanted = WantedBlock(PlainFile(self.path, self.identity), 0, block_bytes, digests)
            self.content[:] = prove.mend(wanted, found)

    def _pass_block(self, block_bytes: int, bounces: BounceBuffers) -> str | None:
        """Read the header in the first block; the digest of all of it, or None: it cannot be read."""
        hashed = blake3()
        at, end = 0, LENGTH_BYTES
        try:
            for piece in bounces.read_pieces(self.descriptor, 0, block_bytes, self.path):
                hashed.update(piece)
                if at == 0:  # how much to keep is no matter of belief: never more than the block
                    end += int.from_bytes(piece[:LENGTH_BYTES], "little")
                self.content += piece[: max(0, end - at)]
                at += len(piece)
        except OSError as exc:
            if is_unreadable(exc):
                return None
            raise
        return hashed.hexdigest()

    def find_end(self) -> int:
        """Where the header ends; Raises: as :func:`~fastload._format.header.parse_header_length`."""
        prefix = bytes(self.content[:LENGTH_BYTES])
        return LENGTH_BYTES + parse_header_length(prefix, path=self.path, file_bytes=self.identity.size)

    def finish(self, end: int) -> Head:
        """Read on to the header's ``end``."""
        check_json_room(end - LENGTH_BYTES, self.path)
        self.extend(end)
        return Head(self.path, bytes(memoryview(self.content)[LENGTH_BYTES:end]), self.identity, self.lost_bytes)

    def extend(self, wanted_bytes: int) -> None:
        """Read on, until so many bytes are there: by whole blocks where these are proven, else what is missing."""
        while len(self.content) < wanted_bytes:
            at = len(self.content)
            end = wanted_bytes if self.prove is None else min(at + BLOCK_BYTES, self.identity.size)
            piece = bytearray(end - at)
            if not read_proven(self.descriptor, at, memoryview(piece), self.path, self._prover(at // BLOCK_BYTES)):
                self.lost_bytes += len(piece)
            # The first piece may be a whole block and is all there is as a rule: it is taken as it is, not copied.
            self.content = self.content + piece if self.content else piece

    def _prover(self, index: int) -> Callable[[memoryview], bool] | None:
        prove = self.prove
        return None if prove is None else lambda piece: prove(self.path, self.identity, index, piece)


def _read_nothing_ahead(descriptor: int) -> None:
    """Keep the kernel from bringing in what lies behind: the weights may be read past its cache, and come twice."""
    with suppress(OSError):  # it is only advice, which not every file system takes
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)


def read_ahead(path: str) -> None:
    """Have the kernel fetch the first block of ``path`` meanwhile."""
    advise(path, 0, BLOCK_BYTES, os.POSIX_FADV_WILLNEED)
