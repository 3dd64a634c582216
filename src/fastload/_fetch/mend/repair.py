"""Mending a stored copy from another tier: block by block while it is loaded, and for good at the end.

A block that is wrong on the storage too is asked of every other tier that has the snapshot, the hub last; what comes
counts only if it has the digest. The tensors get it at once, and so does the copy that takes the place of the stored
file when the load is over, by one rename: whoever reads the old file goes on reading the old file. Where it does not
come to that (a stream that is closed early, an error), the file is marked.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing, suppress
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from fastload._fetch.mend.mended_files import MendedFiles
from fastload._fetch.mend.sources import BetterSources
from fastload._fetch.mend.stored_file import leads_elsewhere
from fastload._read.blocks import read_block
from fastload._read.file import identify
from fastload._read.ledger import Purpose
from fastload._read.proof import mend_block
from fastload._store.folder_offer import offer_stored
from fastload._store.keep.mark import clear_marks, mark_damaged
from fastload._store.stored import CachedSnapshot
from fastload._tier import LOCAL
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import FastloadError, NetworkError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._read.proof import WantedBlock
    from fastload._read.reader import File
    from fastload._read.tally import ProofTally
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.stored import Stored
    from fastload._tier import Tier
    from fastload.options import Settings

_log = logging.getLogger("fastload")


class Leaves(Enum):
    """What whoever mends may leave on storage."""

    NOTHING = auto()
    MARKS = auto()
    """Of what is damaged in the local tier's cache."""
    MENDED = auto()
    """Marks, and mended files, in the local tier's cache."""
    MENDED_ANYWHERE = auto()
    """Marks in the local tier's cache, and mended files on any tier."""


class Repair:
    """Asks better sources for the blocks of one stored snapshot; see :data:`fastload._read.proof.Repair`."""

    def __init__(
        self, stored: Stored, settings: Settings, tally: ProofTally, leaves: Leaves, check: Callable[[], None]
    ) -> None:
        """``check`` raises when it is time to give up: then files stay damaged that are not replaced yet."""
        local = stored if stored.tier == LOCAL and isinstance(stored, CachedSnapshot) else None
        may_mend = leaves is Leaves.MENDED_ANYWHERE or (leaves is Leaves.MENDED and local is not None)
        self._stored = stored
        self._check = check
        self._marked = local if leaves is not Leaves.NOTHING else None
        self._mended = MendedFiles(stored) if may_mend else None
        self.sources = BetterSources(stored, settings)
        """Who is asked."""
        self.tally = tally
        """Where what is read for it is written down."""
        self._lock = threading.Lock()
        self._own: dict[str, OfferedFile] | None = None

    def __call__(self, wanted: WantedBlock) -> memoryview | None:
        """The right bytes of a block, from the first other tier that has them; they may have come before."""
        kept = self._find_kept(wanted)
        if kept is not None:
            return kept
        for source, file in self._find_sources(wanted):
            block = self._ask(source, file, wanted)
            if block is not None:
                if self._mended is None or self.leads_elsewhere(self._know_own(file)):
                    self._mark_as_seen(wanted.file)
                else:
                    self._mended.put(wanted, block)
                _log.warning("%s: block %d was damaged; %s had it right", wanted.file.path, wanted.index, source.tier)
                return block
        self._mark_as_seen(wanted.file)
        return None

    def _find_sources(self, wanted: WantedBlock) -> Iterator[tuple[Offer, OfferedFile]]:
        path = os.path.relpath(wanted.file.path, self._stored.folder)
        for source in self.sources.offers():
            for file in source.files:
                if file.path == path:
                    yield source, file

    def _check_rest(self, wanted: WantedBlock, block: memoryview) -> memoryview:
        """What was read of a file that is mended, if it is right, or what is; Raises: ``IntegrityError``."""
        self._check()
        self.tally.note(Purpose.MEND, len(block))
        found = block_digest(block)
        return block if found == wanted.digest else mend_block(wanted, found, self._ask_all, self.tally)

    def _ask_all(self, wanted: WantedBlock) -> memoryview | None:
        self._check()
        asked = (self._ask(source, file, wanted) for source, file in self._find_sources(wanted))
        return next((block for block in asked if block is not None), None)

    def _ask(self, source: Offer, file: OfferedFile, wanted: WantedBlock) -> memoryview | None:
        """The block, if ``source`` gives it and has it right."""
        if file.size != wanted.file.identity.size:
            return None
        try:
            with closing(source.open(file)) as reader:
                block = read_block(reader, wanted.index * BLOCK_BYTES, wanted.length)
            self.count(source.tier, wanted.length)
        except FastloadError as exc:
            _log.info("%s cannot mend %s: %s", source.tier, file.path, exc)
            if isinstance(exc, NetworkError):
                self.sources.forget(source)
            return None
        return block if block_digest(block) == wanted.digest else None

    def _find_kept(self, wanted: WantedBlock) -> memoryview | None:
        """What came for the block before: a header is asked for once to be believed, and once to be loaded."""
        kept = self._mended.find(wanted) if self._mended is not None else None
        if kept is None:
            return None
        self.tally.note(Purpose.MEND, len(kept))
        return kept if block_digest(kept) == wanted.digest else None

    def keeps(self, wanted: WantedBlock) -> bool:
        """True if the right bytes of the block are there to take the place of the stored ones."""
        return self._mended is not None and self._mended.has(wanted)

    def _know_own(self, file: OfferedFile) -> OfferedFile:
        """The stored file of the same path as a source's ``file``, as its own tier knows it.

        Of a source that has it right but for another block, no word on the whole counts; of one that does not
        contradict, what our tier does not say.
        """
        with self._lock:
            if self._own is None:
                self._own = {}
                with suppress(FastloadError):  # no reason to end a load
                    self._own = {own.path: own for own in offer_stored(self._stored).files}
        own = self._own.get(file.path)
        if own is None or own.contradicts(file):
            return own or file
        return replace(own, sha256=own.sha256 or file.sha256, git_sha1=own.git_sha1 or file.git_sha1)

    def leads_elsewhere(self, file: OfferedFile) -> bool:
        """True if the link of ``file`` leads to what is not its own: nobody may mend it there."""
        return leads_elsewhere(self._stored, file)

    def count(self, tier: Tier, nbytes: int) -> None:
        """So many bytes were read, be they right or not: from a better source, or of what is mended itself."""
        if tier == self._stored.tier:
            self.tally.note(Purpose.MEND, nbytes)
        else:
            self.tally.ledger.note(tier, Purpose.BETTER, nbytes)

    def mark(self, path: str) -> None:
        """The file stays damaged: leave a mark on the local tier, so that ``warm`` tries again."""
        stored = self._marked
        if stored is None:
            return
        try:
            with self._lock:
                mark_damaged(stored.layout, stored.commit, os.path.relpath(path, stored.folder))
        except StoreError as exc:
            _log.info("%s is damaged, and could not be marked: %s", path, exc)

    def _mark_as_seen(self, file: File) -> None:
        """Not what another load, of this group or of its own, has replaced since."""
        with suppress(OSError):  # then it is gone, and nothing is to be marked
            if identify(os.stat(file.path)) == file.identity:
                self.mark(file.path)

    def unmark(self) -> None:
        """Forget the marks of files that were replaced."""
        stored = self._marked
        if stored is None:
            return
        try:
            clear_marks(stored.layout, stored.commit)
        except StoreError as exc:  # what they are bound to is gone: they mark nothing
            _log.info("marks of %s could not be removed: %s", stored.folder, exc)

    def close(self) -> None:
        """Close what was opened to ask; a file that was not replaced, though its blocks came, is marked."""
        for file in self._mended.close() if self._mended is not None else ():
            self._mark_as_seen(file)
        self.sources.close()

    def mend_stored(self) -> None:
        """Replace the files in which blocks were wrong, where a load may do so. Raises: as :meth:`mend_all`."""
        for path, error in self.mend_all().items():
            _log.warning("%s stays damaged, though what was loaded is right: %s", path, error)

    def mend_all(self) -> dict[str, FastloadError]:
        """Replace the files in which blocks were wrong; those that stay as they are, by path, and why.

        Raises:
            DeadlineError: it is time to give up; :meth:`close` marks what was not replaced by then.
        """
        if self._mended is None:
            return {}
        failed = self._mended.publish(self._check_rest, self._ask_all)
        self.unmark()
        for file, _ in failed:
            self._mark_as_seen(file)
        return {file.path: error for file, error in failed}
