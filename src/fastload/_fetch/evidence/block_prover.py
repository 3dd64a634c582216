"""Proves single blocks that are read before there is a plan: those of headers and of an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.evidence.damage import MEND_HINT
from fastload._read.file import with_blob
from fastload._read.proof import WantedBlock, mend_block
from fastload._read.reader import PlainFile
from fastload._verify.digest import block_digest
from fastload.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._format.checkpoint import FileIdentity
    from fastload._read.proof import Repair
    from fastload._read.tally import ProofTally
    from fastload._store.offer import OfferedFile


@dataclass(frozen=True, slots=True)
class BlockProver:
    """See :class:`~fastload._read.head.ProveBlock`; threads may share it."""

    find: Callable[[str], OfferedFile | None]
    """What is known of the file at a path."""
    repair: Repair
    tally: ProofTally

    def find_digests(self, path: str, identity: FileIdentity) -> Sequence[str] | None:
        """See :class:`~fastload._read.head.ProveBlock`."""
        known = self.find(path)
        if known is None or known.blocks is None:
            return None
        if known.size != identity.size:
            at, found = min(known.size, identity.size), f"a file of {identity.size:,} bytes"
            raise IntegrityError(path, at, found, f"{known.size:,}", with_blob(path, MEND_HINT))
        return known.blocks

    def __call__(self, path: str, identity: FileIdentity, index: int, block: memoryview) -> bool:
        """See :class:`~fastload._read.head.ProveBlock`."""
        digests = self.find_digests(path, identity)
        if digests is None:
            return False
        found = block_digest(block)
        if found != digests[index]:
            block[:] = self.mend(WantedBlock(PlainFile(path, identity), index, len(block), digests), found)
        return True

    def mend(self, wanted: WantedBlock, found: str) -> memoryview:
        """See :class:`~fastload._read.head.ProveBlock`."""
        return mend_block(wanted, found, self.repair, self.tally)
