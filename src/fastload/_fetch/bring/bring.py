"""One offer into one root: room, files in, published."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from fastload._clock import Busy, Clock
from fastload._fetch.pace import Pace
from fastload._progress import choose_progress
from fastload._store.admit.admission import EXTENT_BLOCKS, Admission, Tally, Watch
from fastload._store.admit.incoming import Task
from fastload._store.admit.kept import KeptFile
from fastload._store.admit.probe import probe
from fastload._store.admit.stamp import Chosen
from fastload._store.admit.takeover import begin_staged, content_key, open_staged
from fastload._store.keep.evict import Coming, evict
from fastload._store.keep.room import Limits, reserving
from fastload._store.wanted import check_has_weights
from fastload._verify.manifest import Manifest, plain_commit
from fastload._verify.trust import MADE_HERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastload._progress import Callback
    from fastload._store.admit.destination import Destination
    from fastload._store.admit.incoming import Incoming
    from fastload._store.keep.room import Kind
    from fastload._store.keep.scratch import Scratch
    from fastload._store.lease.lease import Lease
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.wanted import Wish
    from fastload.options import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Bringing:
    """What is brought where, and who is told."""

    offer: Offer
    destination: Destination
    root: str
    """The folder whose room is taken."""
    evicts: bool
    """True if older snapshots below the root may make room."""
    wish: Wish
    settings: Settings
    check: Callable[[], None]
    """Raises when it is time to give up."""
    progress: bool | Callback | None
    lease: Lease | None
    """The right to bring it; None: somebody else may do so as well."""
    slot: Lease | None = None
    """A place among those who copy from the offer's tier at once."""
    scratch: Scratch | None = None
    """Where the offer writes whole files beside, since it cannot be read piece by piece."""
    in_order: bool = False
    """True if blocks arrive almost in their order; see :func:`~fastload._store.admit.takeover.open_staged`."""
    clock: Clock = field(default_factory=Clock)
    busy: Busy = field(default_factory=Busy)
    came: Callable[[int], None] = lambda _: None
    """Is told of so many bytes that were read of the offer."""
    was_here: Callable[[int], None] = lambda _: None
    """Is told of so many that were read where they go to: an earlier run, or another tool, had left them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What was published."""

    commit: str
    folder: str
    tally: Tally
    files: tuple[OfferedFile, ...]
    is_new: bool
    """False: a part of the snapshot was there before, and was completed."""


def bring(job: Bringing) -> Brought:
    """Bring the wanted files of an offer in, and publish them as one snapshot.

    Raises:
        FormatError: the offer has no weights that are wanted.
        IntegrityError: a file is not what its digest says, and came wrong twice.
        NoSpaceError, NotWritableError, UnsupportedError: the destination cannot take it.
        HubError, StoreError: the offer cannot be read.
    """
    job.clock.enter("plan")
    try:
        return _bring(job)
    except BaseException:
        if job.scratch is not None:
            job.scratch.close()
        job.destination.tidy()  # a model that is gated, say, should leave no trace
        raise


def _bring(job: Bringing) -> Brought:
    with opened(job) as tasks:
        job.clock.enter("stream")
        tally = admit(job, tasks)
        job.clock.enter("publish")
        return publish(job, tasks, tally)


@contextmanager
def opened(job: Bringing) -> Iterator[list[Task]]:
    """The wanted files on their way in, with room for all of them; inside of it bytes may be put.

    Raises:
        FormatError, NoSpaceError, NotWritableError, UnsupportedError, StoreError: as :func:`bring` says.
    """
    wanted = job.wish.choose(job.offer.files)
    check_has_weights(job.wish, job.offer.files, job.offer.repo)
    with staged(job, wanted) as tasks:
        yield tasks


@contextmanager
def staged(job: Bringing, files: Iterable[OfferedFile]) -> Iterator[list[Task]]:
    """As :func:`opened`, for just these ``files``, of which more may be known than the offer knows."""
    job.destination.make()
    probe(job.destination.area, needs_links=job.destination.needs_links)
    if job.lease is not None and not job.lease.is_lost:
        job.destination.area.sweep()
    with ExitStack() as closing:
        tasks: list[Task] = []
        for file in files:
            existing = job.destination.find_existing(file)
            incoming = _stage(job, file) if existing is None else KeptFile(existing, file.size, file)
            tasks.append(Task(file, incoming))
            closing.callback(_close, tasks[-1])
        _reserve(job, tasks)
        yield tasks


def _close(task: Task) -> None:
    """What the task has now: another file than in the beginning, if that one was wrong."""
    task.incoming.close()


def _stage(job: Bringing, file: OfferedFile) -> Incoming:
    key, in_order = _key(job, file), job.in_order
    job.destination.check_may_come()
    return open_staged(job.destination.area, key, file.size, in_order=in_order, known=file)


def _restage(job: Bringing, task: Task) -> Incoming:
    """A place for a file that turned out wrong, be it by what had been staged of it."""
    if isinstance(task.incoming, KeptFile):
        return _stage(job, task.file)
    key, file = _key(job, task.file), task.file
    return begin_staged(job.destination.area, key, file.size, in_order=job.in_order, known=file)


def _key(job: Bringing, file: OfferedFile) -> str:
    return content_key(file, f"{job.offer.tier}/{job.offer.repo}")


def _reserve(job: Bringing, tasks: Sequence[Task]) -> None:
    scratch_bytes = _count_scratch(job.scratch, tasks)
    needed_bytes = sum(task.incoming.missing_bytes for task in tasks) + scratch_bytes
    max_bytes = job.settings.local_max_bytes if job.evicts else None

    def free(shortfall_bytes: int) -> int:
        return sum(kept.nbytes for kept in evict(job.root, shortfall_bytes, coming=_coming(job, tasks)))

    limits = Limits(min_free=job.settings.min_free, max_bytes=max_bytes, kind=_kind_of(job))
    with reserving(job.root, needed_bytes, limits, free if job.evicts else None):
        for task in tasks:
            task.incoming.reserve()
        if job.scratch is not None:
            job.scratch.promise(scratch_bytes)


def _kind_of(job: Bringing) -> Kind:
    if job.evicts:
        return "local"
    return "cache" if job.destination.needs_links else "plain"


def _count_scratch(scratch: Scratch | None, tasks: Sequence[Task]) -> int:
    """Of the largest files, as many as it may hold at the same time."""
    if scratch is None:
        return 0
    brought = (task.file.size for task in tasks if not isinstance(task.incoming, KeptFile))
    return sum(sorted(brought, reverse=True)[: scratch.files_at_once])


def _coming(job: Bringing, tasks: Sequence[Task]) -> Coming | None:
    """Whoever holds no lease on the repo does not know who else counts on what of it."""
    if job.lease is None or job.lease.is_lost:
        return None
    kept = (os.path.basename(task.incoming.path) for task in tasks if isinstance(task.incoming, KeptFile))
    return Coming(repo=job.offer.repo, commit=job.offer.commit, blobs=frozenset(kept))


def admit(job: Bringing, tasks: Sequence[Task]) -> Tally:
    """Bring in what is missing of the files; the caller's thread tells how far it is."""
    total_bytes = sum(task.file.size for task in tasks)
    progress = choose_progress(job.progress, total_bytes)

    def look(tally: Tally) -> None:
        job.check()
        progress.update(tally.done_bytes)
        for lease in (job.lease, job.slot):
            if lease is not None:
                lease.update(tally.done_bytes, total_bytes)

    # By single blocks a rate is kept evenly, and no thread has many that another one's must wait for.
    extent_blocks = 1 if job.settings.max_rate or job.in_order else EXTENT_BLOCKS
    watch = Watch(look, Pace(job.settings.max_rate).delay_s, job.came, job.was_here, job.busy, extent_blocks)
    admission = Admission(job.offer, tasks, partial(_restage, job), watch)
    try:
        admission.run()
    finally:
        progress.close()
    return admission.tally


def publish(job: Bringing, tasks: Sequence[Task], tally: Tally) -> Brought:
    """Make the snapshot visible; all tasks are done."""
    done = tuple(sorted((task.done for task in tasks if task.done is not None), key=lambda file: file.path))
    commit = job.offer.commit or plain_commit(done)
    # What another tool brought stays that tool's, with a manifest of ours too: made here, it is never evicted.
    source = MADE_HERE if job.destination.is_foreign(commit) else str(job.offer.tier)
    is_new = not job.destination.holds(commit)
    manifest = Manifest(repo=job.offer.repo, commit=commit, source=source, files=done)
    folder = job.destination.publish(manifest, tasks, Chosen(job.wish, is_sure=not job.offer.lacks(job.wish)))
    for task in tasks:
        job.destination.area.forget(_key(job, task.file))
    files = tuple(task.file for task in tasks)
    return Brought(commit=commit, folder=folder, tally=tally, files=files, is_new=is_new)
