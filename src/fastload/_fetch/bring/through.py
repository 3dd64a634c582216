"""Write-through: the copy that a load leaves on the local tier of what it reads from a lower one.

The load reads each block once; the copy takes it from there. What is here already, since an earlier run staged it or
another tool brought the file, is read here. What the load does not read (configs, tokenizer, blocks
that hold headers only) is brought at the end, and then the snapshot is published. Whatever keeps the copy from being
made ends the copy alone: the load has its bytes.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.bring.bring import Bringing, admit, opened, publish
from fastload._format.index import SHARD_SUFFIX
from fastload._read.choose import is_memory
from fastload._read.ledger import Purpose
from fastload._store.admit.destination import CacheDestination
from fastload._store.admit.kept import KeptFile
from fastload._store.admit.reference import write_ref
from fastload._store.admit.resume import ResumedReader
from fastload._store.admit.tee import TeeReader, Tell
from fastload._store.layout import RepoLayout, lease_folder, repo_folder
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import try_hold
from fastload._store.wanted import Wish
from fastload._tier import LOCAL, TierKind
from fastload._verify.difference import find_difference
from fastload.errors import FastloadError, IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from fastload._read.reader import Reader
    from fastload._read.tally import ProofTally
    from fastload._store.admit.incoming import Incoming, Task
    from fastload._store.offer import Offer, OfferedFile
    from fastload._verify.manifest import ManifestFile
    from fastload.options import Settings

_log = logging.getLogger("fastload")

_FEW = 8
"""Weights that were left out are few where they have at most one in so many of the bytes that were loaded."""


_LEFT_WRONG = "Some of it had been left here by an earlier run, and is forgotten now: begin again, and it comes anew"
_NOT_FORGOTTEN = "Some of it was left here, and cannot be removed: run fastload warm NAME, which fetches it again"


class LeftWrongError(IntegrityError):
    """A file was not what it should be, some of which was not read where it is loaded from, but had been left here."""


class Copy:
    """A snapshot on its way to the local tier, fed by a load."""

    def __init__(self, job: Bringing, tasks: list[Task], revision: str | None, layout: RepoLayout) -> None:
        self._job = job
        self._tasks = {task.file.path: task for task in tasks}
        self._revision = revision
        self._layout = layout
        self._resources = ExitStack()
        self._dropped: StoreError | None = None
        self._fed: set[str] = set()

    def own(self, resources: ExitStack) -> None:
        """Close ``resources`` when the copy is closed."""
        self._resources = resources

    def resume(self, path: str, reader: Reader, *, needs_proven: bool) -> Reader:
        """``reader`` of the snapshot's file ``path``, which reads only those blocks that are not here already.

        ``needs_proven``: nothing is taken of a file of which nobody knows yet that what is here of it is right.
        """
        task = self._tasks.get(path)
        if task is None or reader.name == "mmap":  # what is mapped is the source's file
            return reader
        if needs_proven and not task.incoming.is_proven:
            return reader
        return ResumedReader(reader, task.incoming, task.file.size, self._job.was_here)

    def feed(
        self,
        path: str,
        reader: Reader,
        writing: Callable[[], AbstractContextManager[None]],
        proven: Mapping[str, ManifestFile],
    ) -> Reader:
        """``reader`` of the snapshot's file ``path``, with its blocks put into the copy, inside of ``writing()``.

        ``proven``: the files that have passed the proof of the whole so far, by path.
        """
        task = self._tasks.get(path)
        if task is None or self._dropped is not None:
            return reader
        self._fed.add(path)
        told = Tell(
            writing=writing,
            dropped=self._drop,
            wrong=lambda exc: self._forget(task.incoming, exc),
            proven=lambda: _find_proven(task.file, proven.get(path)),
        )
        return TeeReader(reader, task.incoming, task.file.size, told)

    def _forget(self, incoming: Incoming, error: IntegrityError) -> IntegrityError:
        """What is here of a file that is wrong as a whole is not gone on with: which block it is, nobody knows."""
        hint = _LEFT_WRONG
        try:
            incoming.discard()
        except StoreError as exc:  # what matters is that the file is wrong
            _log.info("what is here of %s could not be removed: %s", error.path, exc)
            hint = _NOT_FORGOTTEN
        if not incoming.has_given:
            return error
        return LeftWrongError(error.path, error.offset, error.found, error.expected, hint, is_whole=True)

    def update(self, done_bytes: int, total_bytes: int) -> None:
        """Say to those who wait how far the load is, whatever of it is copied; see :meth:`Lease.update`."""
        if self._job.lease is not None:
            self._job.lease.update(done_bytes, total_bytes)

    def _drop(self, why: StoreError) -> None:
        self._dropped = self._dropped or why

    def publish(self) -> None:
        """All that the load reads was read: bring the rest, and make the snapshot visible.

        Not where weights were left out, such as another variant's: to bring these takes as long as a load. A few do not
        count: a dense layer in a folder of its own, which vLLM reads past the loader.
        """
        if self._leaves_weights_out():
            _log.info("%s is not kept on the local tier: only a part of it was loaded", self._job.offer.repo)
            return
        try:
            if self._dropped is not None:
                raise self._dropped
            tally = admit(self._job, list(self._tasks.values()))
            brought = publish(self._job, list(self._tasks.values()), tally)
            write_ref(self._layout, self._revision, brought.commit, tell=lambda _: self._job.check())
        except FastloadError as exc:  # the tensors are right and complete; only the copy is not
            _log.warning("%s was loaded, but not kept on the local tier: %s", self._job.offer.repo, exc)

    def _leaves_weights_out(self) -> bool:
        unread_bytes = sum(
            task.file.size
            for path, task in self._tasks.items()
            if path not in self._fed and path.endswith(SHARD_SUFFIX) and not isinstance(task.incoming, KeptFile)
        )
        fed_bytes = sum(self._tasks[path].file.size for path in self._fed)
        return unread_bytes * _FEW > fed_bytes

    def close(self) -> None:
        """Let go. What was staged and not published waits in the journals."""
        self._resources.close()


def begin_copy(
    find: Callable[[], Offer], revision: str | None, settings: Settings, check: Callable[[], None], tally: ProofTally
) -> Copy | None:
    """A copy of an offer on the local tier, if there shall be one and can be.

    Args:
        find: gives what is loaded, with all that is known of it.
        revision: the moving revision that shall lead to it; None: none does.
        settings: where to, and whether.
        check: raises when it is time to give up the copy; the load has its bytes by then.
        tally: of where it is loaded from; gets what only the copy has read.
    """
    if not _is_wanted(settings):
        return None
    with ExitStack() as resources:
        try:
            offer = find()
            layout = RepoLayout(repo_folder(settings.local, offer.repo))
            lease = try_hold(lease_folder(settings.local), offer.repo.replace("/", "--"), "loading", LeaseTimes())
            if lease is None:
                _log.info("%s: this load keeps no copy on the local tier, since another one does", offer.repo)
                return None
            resources.enter_context(lease)
            job = Bringing(
                offer=offer,
                destination=CacheDestination(layout),
                root=settings.local,
                evicts=True,
                wish=Wish(),
                settings=settings,
                check=check,
                progress=False,
                lease=lease,
                came=partial(tally.note, Purpose.COPY),
                was_here=partial(tally.ledger.note, LOCAL, Purpose.HERE),
            )
            copy = Copy(job, resources.enter_context(_staged(job)), revision, layout)
        except FastloadError as exc:
            _log.warning("what is loaded is not kept on the local tier: %s", exc)
            return None
        copy.own(resources.pop_all())
    return copy


def _find_proven(file: OfferedFile, found: ManifestFile | None) -> tuple[str, ...] | None:
    """The blocks of what was ``found``, if that is what ``file`` is staged as."""
    is_it = found is not None and file.has_digest and find_difference(file, found) is None
    return found.blocks if found is not None and is_it else None


@contextmanager
def _staged(job: Bringing) -> Iterator[list[Task]]:
    with ExitStack() as resources:
        try:
            tasks = resources.enter_context(opened(job))
        except FastloadError:
            job.destination.tidy()  # no room, say: no trace
            raise
        yield tasks


def _is_wanted(settings: Settings) -> bool:
    if settings.write_through == "auto":
        return TierKind.LOCAL in settings.tiers and "local" in settings.origins and not is_memory(settings.local)
    return settings.write_through == "on" and TierKind.LOCAL in settings.tiers
