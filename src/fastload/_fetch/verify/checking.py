"""Checking one stored file by the best that is known of it: what was found, and what was expected."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.evidence.damage import size_of
from fastload._fetch.evidence.record import digest_file
from fastload._finding import Finding
from fastload._format.index import INDEX_SUFFIX, SHARD_SUFFIX, show_tensors
from fastload._read.again import drop_pages, read_again
from fastload._read.file import identify, open_regular, read_fully
from fastload._read.head import read_header
from fastload._read.proof import WantedBlock
from fastload._read.reader import PlainFile
from fastload._store.directory import contained, containment_root, read_index
from fastload._store.folder_record import UNNAMED
from fastload._verify.digest import BLOCK_BYTES, ContentHash, block_digest, block_length, blocks_of
from fastload._verify.path import is_index
from fastload.errors import FormatError, IntegrityError, StoreError, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.mend.repair import Repair
    from fastload._read.reader import File
    from fastload._read.tally import ProofTally
    from fastload._store.offer import OfferedFile

    Check = Callable[[str, OfferedFile, list[int]], Iterator["Finding"]]
    """All that is wrong with the file at a path; notes the blocks that were right past the page cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVerdict:
    """What was found of one file."""

    path: str
    nbytes: int
    evidence: str
    """``blocks``, ``sha256``, ``git-sha1``; ``blake2b``, ``blake3``: signed; or ``none``: nothing is known of it."""
    findings: tuple[Finding, ...]
    reread: bool = False
    """True if the page cache had it wrong, and the storage has it right."""
    relinked: bool = False
    """True if what was wrong was its link, which leads to the right blob again: that was here, and nothing came."""


class FileCheck:
    """Checks files; each by the best that is known of it."""

    def __init__(
        self, evidence: Evidence, mending: Repair | None, tally: ProofTally, take_turn: Callable[[int], None]
    ) -> None:
        """``take_turn`` returns when so many bytes may be read, and raises when it is time to give up."""
        self._evidence = evidence
        self._mending = mending
        self._tally = tally
        self._take_turn = take_turn

    def check_file(self, file: OfferedFile) -> FileVerdict:
        """All that is wrong with one file."""
        path = os.path.join(self._evidence.folder, file.path)
        kind, check = self._choose(file)
        healed: list[int] = []
        if self._evidence.is_misnamed(file.path):
            misnamed = self._evidence.explain_misnamed(file.path)
            finding = whole(file, misnamed.found, misnamed.expected)
            return FileVerdict(path=file.path, nbytes=file.size, evidence=kind, findings=(finding,))
        try:
            findings = tuple(check(contained(path, containment_root(self._evidence.folder)), file, healed))
        except FormatError as exc:
            findings = (whole(file, exc.found, size_of(file)),)
        except StoreError as exc:
            findings = (whole(file, exc.reason, size_of(file)),)
        except OSError as exc:  # in the midst of it
            findings = (whole(file, f"cannot be read ({exc.strerror or exc})", size_of(file)),)
        return FileVerdict(path=file.path, nbytes=file.size, evidence=kind, findings=findings, reread=bool(healed))

    def _choose(self, file: OfferedFile) -> tuple[str, Check]:
        if file.blocks is not None:
            return "blocks", self._check_blocks
        if file.signed is not None:
            return file.signed.algorithm, self._check_whole
        if file.sha256 is not None or file.git_sha1 is not None:
            return "sha256" if file.sha256 else "git-sha1", self._check_whole
        return "none", self._check_unknown

    def _check_unknown(self, path: str, file: OfferedFile, healed: list[int]) -> Iterator[Finding]:
        """Nothing is known of it; where a manifest says which shards there are, it would be loaded with them."""
        has_index = any(name.endswith(INDEX_SUFFIX) for name in self._evidence.files)
        is_added = self._evidence.is_closed and file.path not in self._evidence.files
        if is_added and file.path.endswith(SHARD_SUFFIX) and not has_index:
            yield whole(file, UNNAMED.found, UNNAMED.expected)
            return
        yield from self._check_structure(path, file)

    def _check_structure(self, path: str, file: OfferedFile) -> Iterator[Finding]:
        """By what a file says itself: how long it is, or which others must be beside it."""
        if file.path.endswith(SHARD_SUFFIX):
            try:
                read_header(path)
            except FormatError as exc:
                yield whole(file, exc.found, exc.expected)
        elif is_index(file.path):
            beside = os.path.dirname(os.path.join(self._evidence.folder, file.path))
            for shard, held in read_index(path).by_shard().items():
                if not os.path.isfile(os.path.join(beside, shard)):
                    yield whole(file, f"no {quoted(shard)} beside it", f"it, for {show_tensors(held)}")

    def _check_blocks(self, path: str, file: OfferedFile, healed: list[int]) -> Iterator[Finding]:
        descriptor = open_regular(path)
        try:
            identity = identify(os.fstat(descriptor))
            if identity.size != file.size:
                yield whole(file, f"{identity.size:,} bytes", f"{file.size:,} bytes")
                return
            buffer = memoryview(bytearray(block_length(0, file.size)))
            digests = file.blocks or ()
            for index, digest in enumerate(digests):
                offset = index * BLOCK_BYTES
                block = buffer[: block_length(index, file.size)]
                self._take_turn(len(block))
                read_fully(descriptor, offset, [block], path=path)
                found = block_digest(block)
                if found != digest:
                    wanted = WantedBlock(PlainFile(path, identity), index, len(block), digests)
                    if self._is_right_past_cache(wanted):
                        healed.append(index)
                        continue
                    is_mended = self._mend(wanted, file)
                    if is_mended:
                        self._tally.ledger.count_repaired(path, [index])
                    yield Finding(
                        path=file.path,
                        block=index,
                        offset=offset,
                        found=f"BLAKE3 {found}",
                        expected=digest,
                        repaired=is_mended,
                    )
        finally:
            os.close(descriptor)

    def _mend(self, wanted: WantedBlock, file: OfferedFile) -> bool:
        """False too where only the file as a whole can be mended: its link is what is wrong."""
        mending = self._mending
        if mending is None or mending.leads_elsewhere(file) or mending(wanted) is None:
            return False
        return mending.keeps(wanted)

    def _check_whole(self, path: str, file: OfferedFile, healed: list[int]) -> Iterator[Finding]:
        descriptor = open_regular(path)
        identity = identify(os.fstat(descriptor))
        os.close(descriptor)
        if identity.size != file.size:
            yield whole(file, f"{identity.size:,} bytes", f"{file.size:,} bytes")
            return
        try:
            digest_file(path, file, self._take_turn)
        except IntegrityError as exc:
            if self._is_whole_past_cache(PlainFile(path, identity), file):
                healed.append(0)
            else:
                yield whole(file, exc.found, exc.expected)

    def _is_whole_past_cache(self, stored: PlainFile, file: OfferedFile) -> bool:
        """True if the storage has the file right; then the pages that have it wrong are let go."""
        content = ContentHash(file.size, file)
        for _, offset, length in blocks_of(file.size):
            block = self._read_again(stored, offset, length)
            if block is None:
                return False
            content.update(block)
        is_right = content.find_difference(file) is None
        if is_right:
            drop_pages(stored.path, 0, file.size)
        return is_right

    def _is_right_past_cache(self, wanted: WantedBlock) -> bool:
        """True if the storage has the block right; then the page that has it wrong is let go."""
        offset = wanted.index * BLOCK_BYTES
        block = self._read_again(wanted.file, offset, wanted.length)
        is_right = block is not None and block_digest(block) == wanted.digest
        if is_right:
            drop_pages(wanted.file.path, offset, wanted.length)
        return is_right

    def _read_again(self, file: File, offset: int, length: int) -> memoryview | None:
        self._take_turn(length)
        block = read_again(file, offset, length)
        if block is not None:
            self._tally.ledger.count_reread(file.path, [offset // BLOCK_BYTES])
        return block


def whole(file: OfferedFile, found: str, expected: str) -> Finding:
    """That the file as a whole is not as it should be."""
    return Finding(path=file.path, block=None, offset=0, found=found, expected=expected, repaired=False)
