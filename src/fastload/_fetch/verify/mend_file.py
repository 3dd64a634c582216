"""Mending a stored file as a whole: one that is missing or of another length, or of which only one digest is known.

Where only its link leads elsewhere, and its blob is here and right, it is linked again, and nothing is fetched.

A digest of the whole (a signature's, the name of a blob, an etag) does not say which blocks are wrong. A manifest may,
even one that proves nothing: it is a hint which blocks to keep and which to fetch, and what they make together is held
to the digest of the whole. Where the hint was wrong, all of the file is fetched.
"""

from __future__ import annotations

import logging
import os
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.damage import compare
from fastload._fetch.mend.repair import leads_elsewhere, look_like
from fastload._read.again import read_again
from fastload._read.blocks import read_block
from fastload._read.file import identify, open_regular
from fastload._read.reader import PlainFile
from fastload._store.directory import contained, contained_target, containment_root
from fastload._store.filesystem import make_folder, new_id, remove_file, replacing, sync_folder, writing
from fastload._verify.digest import BLOCK_BYTES, ContentHash, block_digest, count_blocks
from fastload.errors import DeadlineError, FastloadError, FormatError, NetworkError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.mend.repair import Repair
    from fastload._fetch.verify.checking import FileVerdict
    from fastload._read.tally import ProofTally
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.root import Stored

_log = logging.getLogger("fastload")

Hint = tuple[str, ...] | None
"""What each block may be."""


class _NoBetterError(Exception):
    """The source cannot give it, or what came of it is not what it should be."""


@dataclass(frozen=True, slots=True)
class FileMender:
    """Replaces whole files of one stored snapshot."""

    stored: Stored
    evidence: Evidence
    repair: Repair
    """Knows the better sources."""
    tally: ProofTally
    go_on: Callable[[], None]
    """Raises when it is time to give up."""
    take_turn: Callable[[int], None]
    """Returns when so many bytes of what is stored may be read, and raises as :attr:`go_on` does."""

    def mend_verdict(self, verdict: FileVerdict) -> FileVerdict:
        """``verdict``, with what is wrong of the file as a whole mended, if any source has it right.

        Raises:
            StoreError: the file cannot be written.
            FormatError: a link leads out of the model's folder.
        """
        known = self.evidence.files.get(verdict.path)
        is_whole = any(finding.block is None for finding in verdict.findings)
        if known is None or not is_whole:
            return verdict
        is_relinked = self._relink(known)
        if not is_relinked and not self.mend(known):
            return verdict
        findings = tuple(replace(finding, repaired=True) for finding in verdict.findings)
        return replace(verdict, findings=findings, relinked=is_relinked)

    def mend(self, file: OfferedFile) -> bool:
        """Put the right file in place; False: nobody has it. Raises: as :meth:`mend_verdict`."""
        if not file.has_digest and file.signed is None:
            return False
        for source in self.repair.list_sources():
            offered = next((each for each in source.files if each.path == file.path), None)
            if offered is None or offered.contradicts(file):
                continue
            for hint in self._list_hints(file, offered):
                if self._replace(file, source, offered, hint):
                    _log.warning("%s was damaged; %s had it right", self._path(file), source.tier)
                    self.repair.unmark()
                    return True
        self.repair.mark(self._path(file))
        return False

    def _relink(self, file: OfferedFile) -> bool:
        """Let the file's path lead to its blob, where it leads elsewhere, and the blob is there and right."""
        path, place = self._path(file), self._find_place(file)
        if os.path.realpath(path) == os.path.realpath(place) or not self._is_right(file, place):
            return False
        self._link(file, place)
        if not os.path.exists(path):  # whoever removes what nobody links to may have looked just before
            return False
        _log.warning("%s did not lead to its blob, which is right; it does again", path)
        self.repair.unmark()
        return True

    def _is_right(self, file: OfferedFile, place: str) -> bool:
        """True if what is at ``place``, and not only the page cache, is what ``file`` should be."""
        own = self._open_own(place)
        if own is None or (file.size and own.size != file.size):  # a signature says of no size
            return False
        content = ContentHash(own.size, file.signed)
        for index in range(count_blocks(own.size)):
            block = own.read(index, min(BLOCK_BYTES, own.size - index * BLOCK_BYTES))
            if block is None:
                return False
            content.update(block)
        return compare(file, content) is None

    def _open_own(self, place: str) -> _OwnBlocks | None:
        """What is stored at ``place``; None where that is nothing, or not the model's own."""
        try:
            return _OwnBlocks(contained(place, containment_root(self.stored.folder)), self.take_turn)
        except (FormatError, StoreError):
            return None

    def _path(self, file: OfferedFile) -> str:
        return os.path.join(self.stored.folder, file.path)

    def _list_hints(self, file: OfferedFile, offered: OfferedFile) -> Iterator[Hint]:
        """The best first; None at the end: all of the file is fetched."""
        known = dict.fromkeys((file.blocks, offered.blocks, self.evidence.hints.get(file.path)))
        if self._open_own(self._find_place(file)) is not None:
            yield from (hint for hint in known if hint is not None and len(hint) == count_blocks(offered.size))
        yield None

    def _replace(self, file: OfferedFile, source: Offer, offered: OfferedFile, hint: Hint) -> bool:
        place = self._find_place(file)
        make_folder(self.repair.scratch)
        make_folder(os.path.dirname(place))
        fetched: list[int] = []
        try:
            with replacing(place, self.repair.scratch) as made:
                _write(made, file, offered.size, self._read_blocks(place, source, offered, hint, fetched))
                if os.path.exists(place):
                    look_like(place, made)
        except _NoBetterError:
            return False
        self._link(file, place)
        self.tally.count(repaired=len(fetched))
        return True

    def _find_place(self, file: OfferedFile) -> str:
        """Where the file is to be: where its path leads, or the blob to which it should; none gets another's bytes."""
        path, layout = self._path(file), self.stored.layout
        target = contained_target(path, containment_root(self.stored.folder))
        digest = file.blob_name
        is_elsewhere = not os.path.lexists(path) or leads_elsewhere(path, file)
        return layout.blob(digest) if layout is not None and is_elsewhere and digest else target

    def _link(self, file: OfferedFile, place: str) -> None:
        """Let the file's path lead to ``place``, where it does not, in one step."""
        path = self._path(file)
        if os.path.realpath(path) == os.path.realpath(place):
            return
        make_folder(os.path.dirname(path))
        make_folder(self.repair.scratch)
        made = os.path.join(self.repair.scratch, new_id())
        with writing(path):
            os.symlink(os.path.relpath(place, os.path.realpath(os.path.dirname(path))), made)
            try:
                os.replace(made, path)
            except BaseException:
                remove_file(made)
                raise
        sync_folder(os.path.dirname(path))

    def _read_blocks(
        self, place: str, source: Offer, offered: OfferedFile, hint: Hint, fetched: list[int]
    ) -> Iterator[memoryview]:
        """Own blocks where the hint agrees with them, else the source's; notes which those are."""
        own = None if hint is None else self._open_own(place)
        try:
            with closing(source.open(offered)) as reader:
                for index in range(count_blocks(offered.size)):
                    self.go_on()
                    length = min(BLOCK_BYTES, offered.size - index * BLOCK_BYTES)
                    block = own.find(index, length, hint[index]) if own is not None and hint is not None else None
                    if block is None:
                        block = read_block(reader, index * BLOCK_BYTES, length)
                        self.repair.count(source.tier, length)
                        fetched.append(index)
                    yield block
        except DeadlineError:
            raise
        except FastloadError as exc:
            _log.info("%s cannot mend %s: %s", source.tier, offered.path, exc)
            if isinstance(exc, NetworkError):
                self.repair.forget(source)
            raise _NoBetterError from exc


class _OwnBlocks:
    """What is stored, read past the page cache."""

    def __init__(self, path: str, take_turn: Callable[[int], None]) -> None:
        """``take_turn``: as :class:`FileMender` has it. Raises ``FormatError`` or ``StoreError``: it is no file."""
        descriptor = open_regular(path)
        self._file = PlainFile(path, identify(os.fstat(descriptor)))
        os.close(descriptor)
        self._take_turn = take_turn

    @property
    def size(self) -> int:
        """In bytes."""
        return self._file.identity.size

    def read(self, index: int, length: int) -> memoryview | None:
        """Block ``index``; None where it cannot be read."""
        self._take_turn(length)
        return read_again(self._file, index * BLOCK_BYTES, length)

    def find(self, index: int, length: int, digest: str) -> memoryview | None:
        """Block ``index``, if it has ``digest``."""
        block = self.read(index, length)
        return block if block is not None and block_digest(block) == digest else None


def _write(made: BinaryIO, file: OfferedFile, size: int, blocks: Iterator[memoryview]) -> None:
    """Raise ``_NoBetterError`` where what the blocks make is not what ``file`` should be."""
    content = ContentHash(size, file.signed)
    for block in blocks:
        content.update(block)
        made.write(block)
    made.flush()
    if compare(file, content) is not None:
        raise _NoBetterError
