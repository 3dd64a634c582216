"""Mending a stored copy from another tier: block by block while it is loaded, and for good at the end.

A block that is wrong on the storage too is asked of every other tier that has the snapshot, the hub last; what comes
counts only if it has the digest. The tensors get it at once. The stored copy is replaced when the load is over, by a
copy with the right blocks and one rename: whoever reads the old file goes on reading the old file.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.mend.sources import BetterSources
from fastload._fetch.mend.stored_file import in_its_folder, leads_elsewhere, replace_blocks
from fastload._read.blocks import read_block
from fastload._read.ledger import Purpose
from fastload._store.directory import contained_target, containment_root
from fastload._store.keep.mark import clear_marks, mark_damaged
from fastload._store.stored import PlainFolder
from fastload._tier import LOCAL
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload._verify.path import OURS
from fastload.errors import FastloadError, NetworkError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._read.proof import WantedBlock
    from fastload._read.tally import ProofTally
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.stored import Stored
    from fastload._tier import Tier
    from fastload.options import Settings

_log = logging.getLogger("fastload")


class Repair:
    """Asks better sources for the blocks of one stored snapshot; see :data:`fastload._read.proof.Repair`."""

    def __init__(self, stored: Stored, settings: Settings, tally: ProofTally, *, leaves_marks: bool = True) -> None:
        """``leaves_marks``: what nobody has right is marked on the local tier; not by who only looks."""
        self._stored = stored
        self._leaves_marks = leaves_marks
        self.sources = BetterSources(stored, settings)
        """Who is asked."""
        self.tally = tally
        """Where what is read for it is written down."""
        self._lock = threading.Lock()
        self._mended: dict[str, dict[int, bytes]] = {}

    def __call__(self, wanted: WantedBlock) -> bytes | None:
        """The right bytes of a block, from the first other tier that has them."""
        path = os.path.relpath(wanted.file.path, self._stored.folder)
        for source in self.sources.offers():
            file = next((file for file in source.files if file.path == path), None)
            if file is None or file.size != wanted.file.identity.size:
                continue
            try:
                block = _fetch(source, file, wanted)
                self.count(source.tier, wanted.length)
            except FastloadError as exc:
                _log.info("%s cannot mend %s: %s", source.tier, path, exc)
                if isinstance(exc, NetworkError):
                    self.sources.forget(source)
                continue
            if block is not None:
                if not self.leads_elsewhere(file):
                    with self._lock:
                        self._mended.setdefault(wanted.file.path, {})[wanted.index] = block
                _log.warning("%s: block %d was damaged; %s had it right", wanted.file.path, wanted.index, source.tier)
                return block
        self.mark(wanted.file.path)
        return None

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
        """Nobody has the file right: leave a mark on the local tier, so that ``warm`` tries again."""
        stored = self._stored
        if not self._leaves_marks or isinstance(stored, PlainFolder) or stored.tier != LOCAL:
            return
        try:
            with self._lock:
                mark_damaged(stored.layout, stored.commit, os.path.relpath(path, stored.folder))
        except StoreError as exc:
            _log.info("%s is damaged, and could not be marked: %s", path, exc)

    def unmark(self) -> None:
        """Forget the marks of files that were replaced."""
        stored = self._stored
        if isinstance(stored, PlainFolder) or stored.tier != LOCAL:
            return
        try:
            clear_marks(stored.layout, stored.commit)
        except StoreError as exc:  # what they are bound to is gone: they mark nothing
            _log.info("marks of %s could not be removed: %s", stored.folder, exc)

    @property
    def scratch(self) -> str:
        """The folder for files that are not whole yet: on the file system of the stored ones."""
        stored = self._stored
        if isinstance(stored, PlainFolder):
            return os.path.join(stored.folder, OURS, "staging")
        return stored.layout.ours("staging")

    def close(self) -> None:
        """Close what was opened to ask."""
        self.sources.close()

    def mend_stored(self) -> None:
        """Replace the files in which blocks were wrong, on the local tier, where they may be written."""
        if self._stored.tier == LOCAL and not isinstance(self._stored, PlainFolder):
            for path, error in self._mend_files():
                _log.warning("%s stays damaged, though what was loaded is right: %s", path, error)

    def mend_all(self) -> dict[str, FastloadError]:
        """Replace the files in which blocks were wrong, wherever they are, as whoever asks for a repair wants it.

        What it returns are those that stay as they are, by path, and why.
        """
        return dict(self._mend_files())

    def _mend_files(self) -> Iterator[tuple[str, FastloadError]]:
        """Replaces them; yields those that stay as they are, and why."""
        with self._lock:
            mended, self._mended = self._mended, {}
        for path, blocks in mended.items():
            try:
                root = containment_root(self._stored.folder)
                target = contained_target(path, root)
                if isinstance(self._stored, PlainFolder):  # a link to a neighbour is replaced, and not what it leads to
                    target = in_its_folder(path, root)
                replace_blocks(target, blocks, self.scratch, partial(self.tally.note, Purpose.MEND))
            except FastloadError as exc:
                yield path, exc
        if mended:
            self.unmark()


def _fetch(source: Offer, file: OfferedFile, wanted: WantedBlock) -> bytes | None:
    with closing(source.open(file)) as reader:
        block = bytes(read_block(reader, wanted.index * BLOCK_BYTES, wanted.length))
    return block if block_digest(block) == wanted.digest else None
