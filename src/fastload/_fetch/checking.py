"""Checking one stored file by the best that is known of it: what was found, and what was expected."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.damage import size_of
from fastload._fetch.record import digest_file
from fastload._read.file import identify, open_regular, read_fully
from fastload._read.proof import Wanted
from fastload._read.reader import PlainFile
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import FormatError, IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._fetch.evidence import Evidence
    from fastload._fetch.repair import Repair
    from fastload._store.offer import OfferedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    path: str
    """In the snapshot."""
    block: int | None
    """None: the file as a whole."""
    offset: int
    found: str
    expected: str
    repaired: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileVerdict:
    """What was found of one file."""

    path: str
    nbytes: int
    evidence: str
    """``blocks``, ``sha256``, ``git-sha1``, or ``none``: nothing is known of it."""
    findings: tuple[Finding, ...]


class FileCheck:
    """Checks files; each by the best that is known of it."""

    def __init__(self, evidence: Evidence, mending: Repair | None, go_on: Callable[[], None]) -> None:
        """``go_on`` raises when it is time to give up."""
        self._evidence = evidence
        self._mending = mending
        self._go_on = go_on

    def check_file(self, file: OfferedFile) -> FileVerdict:
        """All that is wrong with one file."""
        path = os.path.join(self._evidence.folder, file.path)
        kind, check = self._choose(file)
        try:
            findings = tuple(check(path, file))
        except FormatError as exc:
            findings = (whole(file, exc.found, size_of(file)),)
        except StoreError as exc:
            findings = (whole(file, exc.reason, size_of(file)),)
        return FileVerdict(path=file.path, nbytes=file.size, evidence=kind, findings=findings)

    def _choose(self, file: OfferedFile) -> tuple[str, Callable[[str, OfferedFile], Iterator[Finding]]]:
        if file.blocks is not None:
            return "blocks", self._check_blocks
        if file.sha256 is not None or file.git_sha1 is not None:
            return "sha256" if file.sha256 else "git-sha1", self._check_whole
        return "none", lambda *_: iter(())

    def _check_blocks(self, path: str, file: OfferedFile) -> Iterator[Finding]:
        descriptor = open_regular(path)
        try:
            identity = identify(os.fstat(descriptor))
            if identity.size != file.size:
                yield whole(file, f"{identity.size:,} bytes", f"{file.size:,} bytes")
                return
            buffer = memoryview(bytearray(min(BLOCK_BYTES, file.size)))
            for index, digest in enumerate(file.blocks or ()):
                self._go_on()
                offset = index * BLOCK_BYTES
                block = buffer[: min(BLOCK_BYTES, file.size - offset)]
                read_fully(descriptor, offset, [block], path=path)
                found = block_digest(block)
                if found != digest:
                    wanted = Wanted(PlainFile(path, identity), index, len(block), digest)
                    is_mended = self._mending is not None and self._mending(wanted) is not None
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

    def _check_whole(self, path: str, file: OfferedFile) -> Iterator[Finding]:
        descriptor = open_regular(path)
        size = os.fstat(descriptor).st_size
        os.close(descriptor)
        if size != file.size:
            yield whole(file, f"{size:,} bytes", f"{file.size:,} bytes")
            return
        try:
            digest_file(path, file, self._go_on)
        except IntegrityError as exc:
            yield whole(file, exc.found, exc.expected)


def whole(file: OfferedFile, found: str, expected: str) -> Finding:
    """That the file as a whole is not as it should be."""
    return Finding(path=file.path, block=None, offset=0, found=found, expected=expected, repaired=False)
