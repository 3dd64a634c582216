"""A file on its way into a tier: staged beside its place, journalled block by block, resumed by whoever comes next.

The journal says which blocks were written and what they were. It is never trusted: a block that it names is read again
and digested before it counts, so it needs no sync, and neither a crash nor a liar can make a block of something else.
Who that may be who comes next: :mod:`~fastload._store.admit.takeover`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING

from fastload._read.file import read_fully, read_stored
from fastload._read.filedigests import FileDigests
from fastload._store.admit.descriptors import Descriptors
from fastload._store.admit.journal import Claims, dump_line, dump_proven
from fastload._store.filesystem import remove_file, writing
from fastload._store.left import is_single
from fastload._verify.digest import BLOCK_BYTES, block_digest
from fastload.errors import FastloadError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.filedigests import Hashing
    from fastload._store.admit.area import StagingArea
    from fastload._store.admit.part import Part
    from fastload._verify.difference import Difference, KnownFile
    from fastload._verify.manifest import ManifestFile

_log = logging.getLogger("fastload")


class StagedFile:
    """One file being written. Threads may put different blocks at once."""

    def __init__(
        self, area: StagingArea, name: str, size: int, journal: int, part: Part, known: KnownFile | None
    ) -> None:
        self._area = area
        self._name = name
        self._size = size
        self._journal = journal
        self._part = part
        self._descriptors = Descriptors(area.part(name), *part.descriptors, journal)
        self._digests = FileDigests(size, self._read_back, known)
        self._claims: Claims | None = None
        self._given: dict[int, str] = {}
        self._is_vouched = False

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

    def has_arrived(self, index: int) -> bool:
        """See :class:`~fastload._store.admit.incoming.Incoming`."""
        return self._digests.has(index)

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

    @property
    def has_given(self) -> bool:
        """True if :meth:`give` has given anything."""
        return bool(self._given)

    @property
    def is_proven(self) -> bool:
        """True if all was left, and whoever left it had seen that it is right as a whole."""
        return self._claims is not None and self._claims.is_proven

    def vouch(self, blocks: Sequence[str]) -> None:
        """A file of just these ``blocks`` was proven as a whole: note it for whoever goes on, if it is not known.

        Without the note he reads it again; so where it cannot be written, that ends nothing.
        """
        if self.is_proven or self._is_vouched:
            return
        self._is_vouched = True
        try:
            with self._descriptors.in_use():
                os.write(self._journal, dump_proven(blocks))
        except (OSError, StoreError) as exc:
            _log.debug("that %s is proven is not noted: %s", self._area.part(self._name), exc)

    def give(self, index: int, pieces: Sequence[memoryview]) -> bool:
        """True if ``pieces`` were filled with block ``index`` as an earlier writer left it, and its journal says.

        It counts as arrived when it is put, by whoever knows more of it; that it lies there already is seen then. What
        lies in another writer's file is not given: if it makes the whole wrong, it could not be taken away from him.
        """
        claims = self._claims
        if claims is None or claims.descriptor != self._part.descriptor or index not in claims.digests:
            return False
        try:
            with self._descriptors.in_use():
                read_fully(claims.descriptor, index * BLOCK_BYTES, pieces, path=self._area.part(self._name))
        except (OSError, FastloadError):
            return False
        if block_digest(*pieces) != claims.digests[index]:
            return False
        self._given[index] = claims.digests[index]
        return True

    def put(self, index: int, block: memoryview, hashing: Hashing = nullcontext) -> None:
        """Block ``index`` has arrived; ``hashing()`` is entered while its digests are taken.

        Raises:
            StoreError: it cannot be written.
        """
        with hashing():
            digest = block_digest(block)
        with self._descriptors.in_use():
            lies_there = self._given.get(index) == digest and not self._digests.has(index)
            if not lies_there:
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
        read_stored(self._part.descriptor, offset, block, self._area.part(self._name))

    def finish(self, path: str) -> ManifestFile:
        """The digests of the whole, all of whose blocks have arrived; the bytes are on the disk when this returns.

        Raises:
            StoreError: the disk could not take them.
        """
        with self._descriptors.in_use():
            with writing(self._area.part(self._name)):
                self._part.sync(self._size)
            return self._digests.finish(path)

    def find_unsigned(self) -> Difference | None:
        """See :class:`~fastload._store.admit.incoming.Incoming`."""
        return self._digests.find_unsigned()

    def publish(self, target: str) -> None:
        """Give the file its name; what had it before is replaced.

        Raises:
            StoreError: it cannot be renamed, or somebody has put something else in its place.
        """
        with writing(target):
            try:
                _check_single(self._area.part(self._name))
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


def _check_single(path: str) -> None:
    """Check that a file lies at ``path``: a link there would get the name of what it is not."""
    if not is_single(os.lstat(path)):
        reason = "is not the file that was written there: somebody has put a link in its place"
        raise StoreError(path, reason, "See who may write to its folder, then run it again")
