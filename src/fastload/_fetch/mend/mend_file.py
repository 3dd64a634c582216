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

from fastload._fetch.mend.own_blocks import OwnBlocks, open_own
from fastload._fetch.mend.places import Places
from fastload._fetch.mend.stored_file import MENDED_STEM, look_like, scratch_of
from fastload._read.blocks import read_block
from fastload._read.file import identify
from fastload._store.directory import containment_root
from fastload._store.filesystem import check_one_mount, make_folder
from fastload._store.replacing import replacing
from fastload._verify.digest import ContentHash, blocks_of, count_blocks
from fastload.errors import DeadlineError, FastloadError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.mend.repair import Repair
    from fastload._format.checkpoint import FileIdentity
    from fastload._read.tally import ProofTally
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.stored import Stored

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

    def mend(self, file: OfferedFile) -> bool:
        """Put the right file in place; False: nobody has it.

        Raises:
            StoreError: it cannot be written.
            FormatError: a link leads out of the model's folder.
        """
        if not file.has_digest and file.signed is None:
            return False
        path = self._places.path(file)
        seen = _look(path)
        for source in self.repair.sources.offers():
            offered = next((each for each in source.files if each.path == file.path), None)
            if offered is None or offered.contradicts(file):
                continue
            if self._mend_from(source, offered, _know_more(file, offered)):
                _log.warning("%s was damaged; %s had it right", path, source.tier)
                self.repair.unmark()
                return True
        if _look(path) == seen:  # and nobody else has mended it meanwhile
            self.repair.mark(path)
        return False

    def _mend_from(self, source: Offer, offered: OfferedFile, file: OfferedFile) -> bool:
        for place in self._places.list_all(file, offered):
            own = self._open_own(place) is not None
            for hint in self._list_hints(file, offered, has_own=own):
                if self._replace(file, place, hint, source, offered):
                    return True
        return False

    def relink(self, file: OfferedFile) -> bool:
        """Let the file's path lead to its blob, where it leads elsewhere, and the blob is there and right."""
        path, place = self._places.path(file), self._places.find(file)
        if os.path.realpath(path) == os.path.realpath(place) or not self._is_right(file, place):
            return False
        self._places.link(file, place)
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
        content = ContentHash(own.size, file)
        for index, _, length in blocks_of(own.size):
            block = own.read(index, length)
            if block is None:
                return False
            content.update(block)
        return content.find_difference(file) is None

    @property
    def _places(self) -> Places:
        return Places(self.stored, self.repair)

    def _open_own(self, place: str) -> OwnBlocks | None:
        return open_own(place, containment_root(self.stored.folder), self.take_turn)

    def _list_hints(self, file: OfferedFile, offered: OfferedFile, *, has_own: bool) -> Iterator[Hint]:
        """The best first; None at the end: all of the file is fetched."""
        known = dict.fromkeys((file.blocks, offered.blocks, self.evidence.hints.get(file.path)))
        if has_own:
            yield from (hint for hint in known if hint is not None and len(hint) == count_blocks(offered.size))
        yield None

    def _replace(self, file: OfferedFile, place: str, hint: Hint, source: Offer, offered: OfferedFile) -> bool:
        scratch = scratch_of(self.stored)
        make_folder(scratch)
        make_folder(os.path.dirname(place))
        check_one_mount(os.path.dirname(place), scratch)
        fetched: list[int] = []
        try:
            with replacing(place, scratch, stem=MENDED_STEM) as made:
                _write(
                    made,
                    self._places.as_called(file, place),
                    offered.size,
                    self._read_blocks(place, source, offered, hint, fetched),
                )
                if os.path.exists(place):
                    look_like(place, made)
        except _NoBetterError:
            return False
        self._places.link(file, place)
        self.tally.ledger.count_repaired(self._places.path(file), fetched)
        return True

    def _read_blocks(
        self, place: str, source: Offer, offered: OfferedFile, hint: Hint, fetched: list[int]
    ) -> Iterator[memoryview]:
        """Own blocks where the hint agrees with them, else the source's; notes which those are."""
        own = None if hint is None else self._open_own(place)
        try:
            with closing(source.open(offered)) as reader:
                for index, offset, length in blocks_of(offered.size):
                    self.go_on()
                    block = own.find(index, length, hint[index]) if own is not None and hint is not None else None
                    if block is None:
                        block = read_block(reader, offset, length)
                        self.repair.count(source.tier, length)
                        fetched.append(index)
                    yield block
        except DeadlineError:
            raise
        except FastloadError as exc:
            _log.info("%s cannot mend %s: %s", source.tier, offered.path, exc)
            if isinstance(exc, NetworkError):
                self.repair.sources.forget(source)
            raise _NoBetterError from exc


def _look(path: str) -> FileIdentity | None:
    try:
        return identify(os.stat(path))
    except OSError:  # nothing is there
        return None


def _know_more(file: OfferedFile, offered: OfferedFile) -> OfferedFile:
    """``file``, with what a source that does not contradict it calls it, where nothing else says what it is called."""
    return file if file.has_digest else replace(file, sha256=offered.sha256, git_sha1=offered.git_sha1)


def _write(made: BinaryIO, file: OfferedFile, size: int, blocks: Iterator[memoryview]) -> None:
    """Raise ``_NoBetterError`` where what the blocks make is not what ``file`` should be."""
    content = ContentHash(size, file)
    for block in blocks:
        content.update(block)
        made.write(block)
    made.flush()
    if content.find_difference(file) is not None:
        raise _NoBetterError
