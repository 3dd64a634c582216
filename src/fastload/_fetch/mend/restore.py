"""Bringing back what a snapshot has lost: files that its manifest names and that are gone, or have another length.

To a load such a file is damage like any other: it is brought from the next tier that has it, digested on the way, and
put in its place before anything is read. Of one that has another length only the blocks come that are wrong. What the
load would not read is left as it is.
"""

from __future__ import annotations

import logging
import os
import posixpath
from contextlib import closing, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.bring.bring import Bringing, admit, staged
from fastload._fetch.evidence.damage import MEND_HINT, size_of
from fastload._fetch.mend.mend_file import FileMender
from fastload._format.select import ByIndex
from fastload._store.admit.destination import CacheDestination
from fastload._store.admit.publish import restore_file
from fastload._store.directory import read_index
from fastload._store.filesystem import has_size
from fastload._store.folder_offer import offer_stored
from fastload._store.keep.reading import Reading
from fastload._store.layout import lease_folder
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import wait_hold
from fastload._store.stored import PlainFolder
from fastload._store.wanted import Wish
from fastload._tier import LOCAL
from fastload._verify.digest import count_blocks
from fastload.errors import DeadlineError, FastloadError, FormatError, IntegrityError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.mend.repair import Repair
    from fastload._format.select import Select
    from fastload._store.layout import RepoLayout
    from fastload._store.lease.holder import Holder
    from fastload._store.lease.lease import Lease
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.stored import Stored
    from fastload.options import Settings

_log = logging.getLogger("fastload")


def find_gap(evidence: Evidence, file: OfferedFile) -> str | None:
    """What is there instead of a ``file`` that is known; None: a file of its length."""
    path = os.path.join(evidence.folder, file.path)
    if not os.path.isfile(path):
        return "no file"
    if has_size(path, file.size) or not file.size:  # a signature says of no size
        return None
    return f"{os.path.getsize(path):,} bytes"


def explain_gap(evidence: Evidence, file: OfferedFile) -> IntegrityError:
    """The error for a ``file`` that is known and lost."""
    path = os.path.join(evidence.folder, file.path)
    return IntegrityError(path, 0, find_gap(evidence, file) or "", size_of(file), MEND_HINT)


def fill_gaps(evidence: Evidence, part: str, select: Select, bring_back: Callable[[OfferedFile], object]) -> None:
    """Have each file brought back that is known, read of the folder ``part``, and lost; or ``bring_back`` raises.

    Not left to whoever reads them: without its index, or a shard that no index names, a folder looks like a smaller
    model that is whole.
    """
    for path in _list_read(evidence, part, select):
        file = evidence.files.get(path)
        if file is not None and find_gap(evidence, file) is not None:
            bring_back(file)


def _list_read(evidence: Evidence, part: str, select: Select) -> Iterator[str]:
    """The paths of what a load of ``part`` reads, by what is known: the index first, since that names the shards."""
    top = os.path.relpath(part, evidence.folder)
    top = "" if top == "." else top
    names = {posixpath.basename(path) for path in evidence.files if posixpath.dirname(path) == top}
    try:
        selection = select(names, path=part)
        if not isinstance(selection, ByIndex):
            yield from (posixpath.join(top, name) for name in selection.names)
            return
        yield posixpath.join(top, selection.name)
        path = os.path.join(part, selection.name)
        shards = read_index(path).shards
    except (FormatError, UsageError, StoreError):
        return  # whoever reads the folder itself finds that too, and knows more
    yield from (posixpath.join(top, shard) for shard in shards)


class Restoring:
    """Puts lost files of one stored snapshot back, from the tiers that mend its blocks."""

    def __init__(self, stored: Stored, repair: Repair, settings: Settings, check: Callable[[], None]) -> None:
        """``check`` raises when it is time to give up."""
        self._check = check
        self._stored = stored
        self._repair = repair
        self._settings = settings
        self._why = ""
        self.relinked: set[str] = set()
        """The files of which only the link was wrong or lost: the blob was here, and was proven."""

    def require(self, evidence: Evidence, file: OfferedFile) -> None:
        """Put ``file`` back.

        Raises:
            IntegrityError: no other tier gives it, or it may not be written.
        """
        damage = explain_gap(evidence, file)
        if not self.restore(evidence, file):
            damage.add_hint(self._why)
            raise damage
        if file.path in self.relinked:
            self._count_repaired(evidence, file)

    def restore(self, evidence: Evidence, file: OfferedFile) -> bool:
        """True if ``file`` is in its place again."""
        if isinstance(self._stored, PlainFolder):  # it is its owner's
            return False
        layout = self._stored.layout
        name, what = self._stored.repo.replace("/", "--"), f"bringing {file.path} again"
        leases = lease_folder(os.path.dirname(layout.folder))
        try:
            lease = wait_hold(
                leases, [name], what, LeaseTimes(), is_done=lambda: not find_gap(evidence, file), tell=self._tell
            )  # fmt: skip
            with lease or nullcontext():
                return lease is None or self._mend(evidence, file) or self._bring(evidence, file, layout, lease)
        except DeadlineError:
            raise
        except FastloadError as exc:
            self._why = f"It cannot be brought again: {exc}"
            return False

    def _mend(self, evidence: Evidence, file: OfferedFile) -> bool:
        """One of another length, most of whose blocks may be right: True if it has all of them by now.

        Where that fails, as for want of room that could be made, it is brought as a whole.
        """
        if not os.path.isfile(os.path.join(evidence.folder, file.path)) or self._repair.leads_elsewhere(file):
            return False

        def take_turn(nbytes: int) -> None:
            self._check()
            self._repair.count(self._stored.tier, nbytes)

        mender = FileMender(self._stored, evidence, self._repair, self._repair.tally, self._check, take_turn)
        try:
            with closing(Reading(self._stored)):  # nobody evicts it meanwhile
                is_mended = mender.mend(file)
        except (StoreError, FormatError) as exc:
            _log.info("%s is not mended where it is: %s", file.path, exc)
            return False
        if is_mended:  # the length is wrong where the last block is, though that may be right as far as it goes
            self._count_repaired(evidence, file, first=max(0, count_blocks(file.size) - 1))
        return is_mended

    def _count_repaired(self, evidence: Evidence, file: OfferedFile, first: int = 0) -> None:
        path = os.path.join(evidence.folder, file.path)
        self._repair.tally.ledger.count_repaired(path, range(first, max(1, count_blocks(file.size))))

    def _bring(self, evidence: Evidence, file: OfferedFile, layout: RepoLayout, lease: Lease) -> bool:
        """From the first source whose bytes are right."""
        gap = find_gap(evidence, file)
        for offer in self._list_sources(file, layout):
            try:
                self._bring_from(offer, file, layout, lease)
            except DeadlineError:
                raise
            except FastloadError as exc:
                self._why = f"{offer.tier} could not give it: {exc}"
                continue
            path = os.path.join(evidence.folder, file.path)
            if offer.tier == self._stored.tier:
                self.relinked.add(file.path)
                _log.warning("%s: found %s; linked again to its blob, which is right", path, gap)
            else:
                self._count_repaired(evidence, file)
                _log.warning("%s: found %s; brought again from %s", path, gap, offer.tier)
            return True
        return False

    def _list_sources(self, file: OfferedFile, layout: RepoLayout) -> Iterator[Offer]:
        """What has the file; where the blob is there and only the link to it is lost, nobody else is asked first."""
        if CacheDestination(layout).find_existing(file) is not None:
            yield offer_stored(self._stored)
        for offer in self._repair.sources.offers():
            if any((other.path, other.size) == (file.path, file.size) for other in offer.files):
                yield offer

    def _bring_from(self, offer: Offer, file: OfferedFile, layout: RepoLayout, lease: Lease) -> None:
        job = Bringing(
            offer=offer,
            destination=CacheDestination(layout),
            root=os.path.dirname(layout.folder),
            evicts=self._stored.tier == LOCAL,
            wish=Wish(),
            settings=self._settings,
            check=self._check,
            progress=False,
            lease=lease,
            came=partial(self._repair.count, offer.tier),
            was_here=partial(self._repair.count, self._stored.tier),
        )
        # Read by somebody, it is not what goes where its own file needs room.
        with closing(Reading(self._stored)), staged(job, [file]) as tasks:
            admit(job, tasks)
            restore_file(layout, os.path.basename(self._stored.folder), tasks[0])

    def _tell(self, holder: Holder) -> None:
        self._check()
        _log.info("waiting for %s", holder)
