"""Mending a stored copy from another tier: block by block while it is loaded, and for good at the end.

A block that is wrong on the storage too is asked of every other tier that has the snapshot, the hub last; what comes
counts only if it has the digest. The tensors get it at once. The stored copy is replaced when the load is over, by a
copy with the right blocks and one rename: whoever reads the old file goes on reading the old file.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from fastload._fetch.find.resolve import tiers_of
from fastload._fetch.find.source import hub_of
from fastload._read.blocks import read_block
from fastload._read.file import read_fully, regular_only
from fastload._store.directory import contained_target, containment_root
from fastload._store.filesystem import make_folder, replacing
from fastload._store.folder_offer import offer_stored
from fastload._store.hub.tier import Patience
from fastload._store.keep.mark import clear_marks, mark_damaged
from fastload._store.listing import with_digest
from fastload._store.patience import ask_all
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._store.tiered import PATIENCE_S
from fastload._verify.digest import BLOCK_BYTES, block_digest, block_length, count_blocks
from fastload._verify.path import OURS
from fastload.errors import FastloadError, NetworkError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from fastload._read.proof import WantedBlock
    from fastload._store.hub.tier import HubTier
    from fastload._store.layout import RepoLayout
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.root import Root
    from fastload._store.stored import Stored
    from fastload.options import Settings

_log = logging.getLogger("fastload")


_SOON = Patience(
    attempts=3, give_up_after_s=4.0, longest_pause_s=1.0, connect_timeout_s=5.0, read_timeout_s=5.0
)  # fmt: skip
"""A load waits for it: a hub that does not answer within ten seconds is no better source."""


class Repair:
    """Asks better sources for the blocks of one stored snapshot; see :data:`fastload._read.proof.Repair`."""

    def __init__(self, stored: Stored, settings: Settings, *, leaves_marks: bool = True) -> None:
        """``leaves_marks``: what nobody has right is marked on the local tier; not by who only looks."""
        self._stored = stored
        self._leaves_marks = leaves_marks
        self._tiers = tiers_of(settings)
        self._settings = settings
        self._hub: HubTier | None = None
        self._lock = threading.Lock()
        self._sources: list[Offer] | None = None
        self._mended: dict[str, dict[int, bytes]] = {}
        self._read_bytes: Counter[str] = Counter()

    def __call__(self, wanted: WantedBlock) -> bytes | None:
        """The right bytes of a block, from the first other tier that has them."""
        path = os.path.relpath(wanted.file.path, self._stored.folder)
        for source in self.list_sources():
            file = next((file for file in source.files if file.path == path), None)
            if file is None or file.size != wanted.file.identity.size:
                continue
            try:
                block = _fetch(source, file, wanted)
                self.count(source.tier, wanted.length)
            except FastloadError as exc:
                _log.info("%s cannot mend %s: %s", source.tier, path, exc)
                if isinstance(exc, NetworkError):
                    self.forget(source)
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
        return _leads_elsewhere(self._stored, file)

    def count(self, tier: str, nbytes: int) -> None:
        """So many bytes were read, be they right or not: from a better source, or of what is mended itself."""
        with self._lock:
            self._read_bytes[tier] += nbytes

    def read_by_tier(self) -> dict[str, int]:
        """Bytes that were read so far, by :meth:`count`; what a load reads of its own tier it counts itself."""
        with self._lock:
            return dict(self._read_bytes)

    def mark(self, path: str) -> None:
        """Nobody has the file right: leave a mark on the local tier, so that ``warm`` tries again."""
        stored = self._stored
        if not self._leaves_marks or isinstance(stored, PlainFolder) or stored.tier != "local":
            return
        try:
            with self._lock:
                mark_damaged(stored.layout, stored.commit, os.path.relpath(path, stored.folder))
        except StoreError as exc:
            _log.info("%s is damaged, and could not be marked: %s", path, exc)

    def unmark(self) -> None:
        """Forget the marks of files that were replaced."""
        stored = self._stored
        if isinstance(stored, PlainFolder) or stored.tier != "local":
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

    def forget(self, source: Offer) -> None:
        """``source`` does not answer: whoever waited for it once need not wait again, for each block."""
        with self._lock:
            if self._sources is not None and source in self._sources:
                self._sources.remove(source)

    def list_sources(self) -> tuple[Offer, ...]:
        """What better sources have of it; they are asked once."""
        with self._lock:
            if self._sources is None:
                self._sources = list(self._find_sources())
            return tuple(self._sources)

    def _find_sources(self) -> Iterator[Offer]:
        """What other tiers offer; one that cannot say is no better source."""
        others = [root for root in self._tiers.roots if root.label != self._stored.tier]
        asks: list[Callable[[], Offer | None]] = [partial(self._ask_root, root) for root in others]
        for ask in (*asks, self._ask_the_hub):
            try:
                offer = ask()
            except FastloadError as exc:
                _log.info("%s cannot be mended from everywhere: %s", self._stored.repo, exc)
            else:
                if offer is not None:
                    yield offer

    def _ask_root(self, root: Root) -> Offer | None:
        """What ``root`` offers; a mount that hangs is no better source."""
        asked = ask_all((root,), self._find_at, patience_s=PATIENCE_S)
        return next((offer for _, offer in asked.replies), None)

    def _find_at(self, root: Root) -> Offer | None:
        commit = self._stored.commit
        snapshot = root.find_commit(self._stored.repo, commit) if commit is not None else None
        stored = snapshot or root.find_plain(self._stored.repo)
        return offer_stored(stored) if stored is not None else None

    def _ask_the_hub(self) -> Offer | None:
        repo, commit = self._stored.repo, self._stored.commit
        if commit is None or "/" not in repo:
            return None
        self._hub = hub_of(self._settings, _SOON)  # not before: who needs no repair needs no hub that can be asked
        return self._hub.find(repo, commit) if self._hub is not None else None

    def close(self) -> None:
        """Close what was opened to ask."""
        if self._hub is not None:
            self._hub.close()

    def mend_stored(self) -> int:
        """Replace the files in which blocks were wrong, on the local tier, where they may be written.

        What it returns is how much was read of them for that.
        """
        if self._stored.tier != "local" or isinstance(self._stored, PlainFolder):
            return 0
        replaced = _Replaced()
        for path, error in self._mend_files(replaced):
            _log.warning("%s stays damaged, though what was loaded is right: %s", path, error)
        return replaced.read_bytes

    def mend_all(self) -> dict[str, FastloadError]:
        """Replace the files in which blocks were wrong, wherever they are, as whoever asks for a repair wants it.

        What it returns are those that stay as they are, by path, and why.
        """
        replaced = _Replaced()
        failed = dict(self._mend_files(replaced))
        self.count(self._stored.tier, replaced.read_bytes)
        return failed

    def _mend_files(self, replaced: _Replaced) -> Iterator[tuple[str, FastloadError]]:
        """Replaces them; yields those that stay as they are, and why."""
        with self._lock:
            mended, self._mended = self._mended, {}
        for path, blocks in mended.items():
            try:
                root = containment_root(self._stored.folder)
                target = contained_target(path, root)
                if isinstance(self._stored, PlainFolder):  # a link to a neighbour is replaced, and not what it leads to
                    target = in_its_folder(path, root)
                _replace(target, blocks, self.scratch, replaced)
            except FastloadError as exc:
                yield path, exc
        if mended:
            self.unmark()


def in_its_folder(path: str, root: str) -> str:
    """``path`` itself, be it a link, where its folder leads to, which must be below ``root``; else ``FormatError``."""
    above, name = os.path.split(path)
    return os.path.join(contained_target(above, root), name)


def _leads_elsewhere(stored: Stored, file: OfferedFile) -> bool:
    """True if the link of ``file`` leads to what is not called by its digest, or to no blob of the repo.

    Then the link is wrong, and not what it leads to, whose bytes other snapshots, or another model, may need.
    """
    path = os.path.join(stored.folder, file.path)
    if not os.path.islink(path):
        return False
    first = os.path.join(os.path.dirname(path), os.readlink(path))
    named = with_digest(replace(file, sha256=None, git_sha1=None), os.path.basename(first))
    if named.contradicts(file):
        return True
    says_all = (named.sha256 or named.git_sha1) in {file.sha256, file.git_sha1} - {None}
    return isinstance(stored, CachedSnapshot) and not says_all and not is_blob(first, stored.layout)


def is_blob(path: str, layout: RepoLayout) -> bool:
    """True if ``path``, be it a link or not, lies where the blobs of the repo are."""
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(layout.blobs)


def _fetch(source: Offer, file: OfferedFile, wanted: WantedBlock) -> bytes | None:
    with closing(source.open(file)) as reader:
        block = bytes(read_block(reader, wanted.index * BLOCK_BYTES, wanted.length))
    return block if block_digest(block) == wanted.digest else None


@dataclass(slots=True)
class _Replaced:
    """What was read of stored files to replace them."""

    read_bytes: int = 0


def _replace(path: str, blocks: dict[int, bytes], scratch: str, replaced: _Replaced) -> None:
    """A copy of the file with these blocks takes its name; tells ``replaced`` what was read."""
    make_folder(scratch)
    with replacing(path, scratch) as file:
        with open(path, "rb", buffering=0, opener=regular_only) as damaged:
            size = os.fstat(damaged.fileno()).st_size
            for index in range(count_blocks(size)):
                block: bytes | memoryview | None = blocks.get(index)
                if block is None:  # what is replaced is not read: it may be what the disk cannot give
                    block = _read_stored(damaged, index, size)
                    replaced.read_bytes += len(block)
                file.write(block)
        file.flush()
        look_like(path, file)


def _read_stored(damaged: FileIO, index: int, size: int) -> memoryview:
    block = memoryview(bytearray(block_length(index, size)))
    read_fully(damaged.fileno(), index * BLOCK_BYTES, [block], path=str(damaged.name))
    return block


def look_like(path: str, file: BinaryIO) -> None:
    """Whoever might read the old file may read the new one; and it is what it was, not a new version."""
    status = os.stat(path)
    with suppress(PermissionError):  # only root gives files away
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
    shutil.copystat(path, file.name)
