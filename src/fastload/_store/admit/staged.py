"""A file on its way into a tier: staged beside its place, journalled block by block, resumed by whoever comes next.

The journal says which blocks were written and what they were. It is never trusted: a block that it names is read again
and digested before it counts, so it needs no sync, and neither a crash nor a liar can make a block of something else.

A staging inode has one writer ever. Whoever finds a file of somebody else's takes it over only where its writer is
provably dead: the same boot of the same machine, and a lock that is free where locks tell the truth. Else the blocks
are copied to an inode of one's own, and a writer that comes back from the dead writes where nobody looks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._read.file import read_fully, regular_only
from fastload._read.filedigests import FileDigests
from fastload._store.admit.descriptors import Descriptors
from fastload._store.admit.journal import Claims, dump_head, dump_line, parse_journal
from fastload._store.admit.part import Part
from fastload._store.filesystem import make_folder, new_id, remove_file, writing
from fastload._store.keep.disk import list_folder
from fastload._store.lease.lock import flock_is_truthful, try_exclusive
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from fastload._read.filedigests import Hashing
    from fastload._store.offer import OfferedFile
    from fastload._verify.manifest import ManifestFile

UNDER_LEASE = re.compile(r"(?:probe|hub|stamp|[0-9a-f]{40,64}|plain-[0-9a-f]{40})(?:\.json)?\.[0-9a-f]{16}")
"""What only the holder of the lease makes: probes, scratch, files on their way in, what is about to be renamed."""


@dataclass(frozen=True, slots=True)
class StagingArea:
    """Where the files of one repo, or of one plain folder, are staged."""

    ours: str
    """The ``.fastload`` folder."""

    @property
    def parts(self) -> str:
        """Where bytes are."""
        return os.path.join(self.ours, "staging")

    @property
    def journals(self) -> str:
        """Where it is noted which of them are there."""
        return os.path.join(self.ours, "journals")

    def make(self) -> None:
        """Make the folders."""
        make_folder(self.parts)
        make_folder(self.journals)

    def list_names(self, key: str) -> list[str]:
        """The names under which content ``key`` was staged, by whomever.

        Raises:
            StoreError: the folder cannot be read.
        """
        with writing(self.journals):
            try:
                return sorted(name for name in os.listdir(self.journals) if name.startswith(f"{key}."))
            except FileNotFoundError:
                return []

    def part(self, name: str) -> str:
        """The file that holds the bytes."""
        return os.path.join(self.parts, name)

    def journal(self, name: str) -> str:
        """The file that says which."""
        return os.path.join(self.journals, name)

    def remove(self, name: str) -> None:
        """Forget what was staged as ``name``. If somebody still writes there, it is to nobody's harm but his own."""
        remove_file(self.part(name))
        remove_file(self.journal(name))

    def forget(self, key: str) -> None:
        """Remove whatever was staged of content ``key``, which is published now."""
        for name in self.list_names(key):
            self.remove(name)

    def find_remains(self, made: re.Pattern[str]) -> list[str]:
        """The names of what was about to be renamed, of what is ``made`` under one lease; what has a journal is kept.

        Raises:
            StoreError: a folder cannot be read.
        """
        names = {name for name in list_folder(self.parts) if made.fullmatch(name)}
        return sorted(names.difference(list_folder(self.journals))) if names else []

    def sweep(self, made: re.Pattern[str] = UNDER_LEASE) -> None:
        """Remove what a dead holder of the lease was about to rename; for its next holder, who stages nothing yet."""
        for name in self.find_remains(made):
            if os.path.isdir(self.part(name)):
                shutil.rmtree(self.part(name), ignore_errors=True)
            else:
                remove_file(self.part(name))


class StagedFile:
    """One file being written. Threads may put different blocks at once."""

    def __init__(self, area: StagingArea, name: str, size: int, journal: int, *, in_order: bool) -> None:
        """``in_order``: see :func:`open_staged`."""
        self._area = area
        self._name = name
        self._size = size
        self._journal = journal
        with writing(area.part(name)):
            self._part = Part(area.part(name), past_cache=in_order)
        self._descriptors = Descriptors(area.part(name), *self._part.descriptors, journal)
        self._digests = FileDigests(size, self._read_back)
        self._claims: Claims | None = None

    @property
    def missing_bytes(self) -> int:
        """The room that it will take and has not taken yet."""
        return max(0, self._size - self._part.taken_bytes)

    def reserve(self) -> None:
        """Take the room on the disk.

        Raises:
            NoSpaceError: there is none.
        """
        with writing(self._area.part(self._name)):
            self._part.reserve(self._size)

    def inherit(self, claims: Claims) -> None:
        """Count on what an earlier writer left, once it is proven."""
        self._claims = claims
        self._descriptors.add(claims.descriptor)

    def recall(self, index: int, block: memoryview, hashing: Hashing = nullcontext) -> bool:
        """True if block ``index`` is there; what an earlier writer left of it is proven first, by way of ``block``."""
        if self._digests.has(index):
            return True  # put by whoever read it first; nobody needs to see it again
        if self._claims is None or index not in self._claims.digests:
            return False
        with self._descriptors.in_use():
            return self._prove(self._claims, index, block, hashing)

    def _prove(self, claims: Claims, index: int, block: memoryview, hashing: Hashing) -> bool:
        try:
            if os.preadv(claims.descriptor, [block], index * BLOCK_BYTES) != len(block):
                return False
        except OSError:
            return False
        with hashing():
            digest = block_digest(block)
        if digest != claims.digests[index]:
            return False
        if claims.descriptor != self._part.descriptor:
            self._write(index, digest, block)
        self._await_turn(index)
        with hashing():
            self._digests.add(index, digest, block)
        return True

    def put(self, index: int, block: memoryview, hashing: Hashing = nullcontext) -> None:
        """Block ``index`` has arrived; ``hashing()`` is entered while its digests are taken.

        Raises:
            StoreError: it cannot be written.
        """
        with hashing():
            digest = block_digest(block)
        with self._descriptors.in_use():
            self._write(index, digest, block)
            self._await_turn(index)
            with hashing():
                self._digests.add(index, digest, block)

    def _write(self, index: int, digest: str, block: memoryview) -> None:
        with writing(self._area.part(self._name)):
            self._part.write(index * BLOCK_BYTES, block)
            os.write(self._journal, dump_line(index, digest))

    def _await_turn(self, index: int) -> None:
        if self._part.is_past_cache:
            self._digests.await_turn(index)

    def _read_back(self, offset: int, block: memoryview) -> None:
        read_fully(self._part.descriptor, offset, [block], path=self._area.part(self._name))

    def finish(self, path: str) -> ManifestFile:
        """The digests of the whole, all of whose blocks have arrived; the bytes are on the disk when this returns.

        Raises:
            StoreError: the disk could not take them.
        """
        with self._descriptors.in_use():
            with writing(self._area.part(self._name)):
                self._part.sync(self._size)
            return self._digests.finish(path)

    def publish(self, target: str) -> None:
        """Give the file its name; what had it before is replaced."""
        with writing(target):
            try:
                os.replace(self._area.part(self._name), target)
            except FileNotFoundError:
                # Whoever published the same content meanwhile has cleared this copy away (see `StagingArea.forget`).
                if not os.path.isfile(target) or os.path.getsize(target) != self._size:
                    raise
        self._descriptors.release()
        remove_file(self._area.journal(self._name))

    def discard(self) -> None:
        """Forget all that was written."""
        self._descriptors.release()
        self._area.remove(self._name)

    def close(self) -> None:
        """Let go; what was written waits in the journal for whoever comes next. Empty room is given back."""
        is_empty = self._digests.is_empty and not (self._claims and self._claims.digests)
        self._claims = None
        if is_empty:
            with contextlib.suppress(StoreError):  # it is about to say something more important, or nothing
                self._area.remove(self._name)
        self._descriptors.release()


def content_key(file: OfferedFile, place: str) -> str:
    """Under what ``file`` is staged: its digest, or where nobody knows one, where it lies and the state it is in."""
    state = json.dumps([place, file.path, file.size, file.mtime_ns]).encode("utf-8")
    return file.sha256 or file.git_sha1 or f"plain-{block_digest(state)[:40]}"


def open_staged(area: StagingArea, key: str, size: int, *, in_order: bool = False) -> StagedFile:
    """A staged file for the content ``key`` of ``size`` bytes, with whatever an earlier writer left of it.

    Args:
        area: where.
        key: see :func:`content_key`.
        size: in bytes.
        in_order: its blocks will come almost in their order, as from a folder. Then they are written past the page
            cache, and who brings one waits a moment for its turn in the digest of the whole. From a hub a block may be
            late by seconds: those behind it are read back from the page cache.

    Raises:
        StoreError: it cannot be written.
    """
    for name in area.list_names(key):
        taken = _take_over(area, name, size, in_order=in_order)
        if taken is not None:
            return taken
    staged = _begin(area, f"{key}.{new_id()}", size, in_order=in_order)
    for name in area.list_names(key):
        claims = _read_claims(area, name, size)
        if claims is not None:
            staged.inherit(claims)
            break
    return staged


def _begin(area: StagingArea, name: str, size: int, *, in_order: bool) -> StagedFile:
    head = dump_head(size, os.stat(area.journals).st_dev)
    with writing(area.journal(name)):
        journal = os.open(area.journal(name), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            try_exclusive(journal)
            os.write(journal, head)
            return StagedFile(area, name, size, journal, in_order=in_order)
        except BaseException:
            os.close(journal)
            area.remove(name)
            raise


def _take_over(area: StagingArea, name: str, size: int, *, in_order: bool) -> StagedFile | None:
    """The file ``name`` as our own, if its writer is provably dead."""
    try:
        journal = regular_only(area.journal(name), os.O_RDWR | os.O_APPEND)
    except (OSError, FormatError):
        return None
    is_ours, digests = parse_journal(journal, size)
    is_dead = is_ours and flock_is_truthful(area.journal(name)) and try_exclusive(journal)
    if not is_dead or not os.path.isfile(area.part(name)) or not os.path.isfile(area.journal(name)):
        os.close(journal)
        return None
    try:
        staged = StagedFile(area, name, size, journal, in_order=in_order)
    except StoreError:
        os.close(journal)
        raise
    staged.inherit(Claims(staged._part.descriptor, digests))  # noqa: SLF001 - the same inode: what is there is not copied
    return staged


def _read_claims(area: StagingArea, name: str, size: int) -> Claims | None:
    try:
        journal = regular_only(area.journal(name), os.O_RDONLY)
    except (OSError, FormatError):
        return None
    try:
        _, digests = parse_journal(journal, size)
        return Claims(regular_only(area.part(name), os.O_RDONLY), digests) if digests else None
    except (OSError, FormatError):
        return None
    finally:
        os.close(journal)
