"""Bringing the files of an offer in: threads read extents, digest and stage them; each file is settled by its digests.

::

    extents of all files, in order ─► read from the offer ─► digest ─► stage ─► last block: sync, compare ─► settled
                                      (or recalled: staged by an earlier run)        └─ not what it should be: once more

Nothing is published here (see :mod:`~fastload._store.admit.publish`): what was brought in when an error or Ctrl-C comes
waits in the journals for the next run.
"""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from fastload._address_space import map_private
from fastload._clock import Busy
from fastload._read.blocks import runs_of
from fastload._read.pool import ReaderPool
from fastload._store.admit.arriving import measured, read_each
from fastload._store.admit.extent_queue import ExtentQueue
from fastload._store.admit.wrong import find_wrong, refuse
from fastload._thread import join_all, start_thread
from fastload._verify.digest import BLOCK_BYTES, blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._store.admit.incoming import Incoming, Task
    from fastload._store.offer import Offer, OfferedFile

EXTENT_BLOCKS = 4
"""A request for less makes a far hub slow."""
_JOIN_S = 0.8
_LOOK_S = 0.1
_ATTEMPTS = 2


@dataclass(slots=True)
class Tally:
    """What was done; threads add to it."""

    done_bytes: int = 0
    """Staged, recalled bytes included."""
    staging_bytes: int = 0
    """Memory that they take for it."""
    refetched_files: list[str] = field(default_factory=list)
    busy: Busy = field(default_factory=Busy)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def count(self, nbytes: int) -> None:
        """So many bytes are staged."""
        with self._counting:
            self.done_bytes += nbytes

    def take_back(self, file: OfferedFile) -> None:
        """All of ``file`` was wrong, and comes once more."""
        with self._counting:
            self.refetched_files.append(file.path)
            self.done_bytes -= file.size


@dataclass(frozen=True, slots=True)
class Watch:
    """What the caller's thread does while others work; both may raise, which ends the work."""

    tell: Callable[[Tally], None]
    pace: Callable[[int], float]
    """Asked by a worker before it reads so many bytes: how many seconds to wait."""
    came: Callable[[int], None]
    """Told by a worker what it has read of the offer."""
    was_here: Callable[[int], None]
    """Told what it has read back of what was staged before, or was in its place already."""
    busy: Busy = field(default_factory=Busy)
    """Where workers count their time."""
    extent_blocks: int = EXTENT_BLOCKS
    """How many blocks a worker takes at once."""


class Admission:
    """Brings all tasks of one offer in."""

    def __init__(self, offer: Offer, tasks: Sequence[Task], restage: Callable[[Task], Incoming], watch: Watch) -> None:
        """``restage``: a place for a file whose bytes turned out wrong, with nothing of them in it."""
        self._offer = offer
        self._tasks = tasks
        self._restage = restage
        self._watch = watch
        self._extent_bytes = watch.extent_blocks * BLOCK_BYTES
        self.tally = Tally(busy=watch.busy)
        self._queue = ExtentQueue([task.file.size for task in tasks], self._extent_bytes, offer.depth)
        self._readers = ReaderPool(lambda number: offer.open(tasks[number].file), self._queue.count_by_file())

    def run(self) -> None:
        """Bring everything in.

        Raises:
            IntegrityError: a file is, the second time too, not what its digest says.
            FastloadError: what reading and writing raise.
        """
        threads = [
            threading.Thread(target=self._work, name=f"fastload-admit-{number}", daemon=True)
            for number in range(min(self._offer.depth, len(self._queue)))
        ]
        self.tally.staging_bytes = len(threads) * self._extent_bytes
        try:
            for thread in threads:
                start_thread(thread)
            self._wait()
        finally:
            self._stop()
            join_all(threads, _JOIN_S)
        self._queue.check()

    def _wait(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._queue.wait_over(_LOOK_S)
            self._watch.tell(self.tally)

    def _stop(self) -> None:
        self._queue.stop()
        self._readers.close()

    def _work(self) -> None:
        try:
            buffer = memoryview(map_private(self._extent_bytes))
            while (extent := self._queue.take()) is not None:
                number, offset = extent
                if self._bring(number, offset, buffer) and self._queue.count_down(number):
                    self._settle(number, self._tasks[number])
        except BaseException as error:  # noqa: BLE001 - it travels to the caller's thread, whatever it is
            self._queue.stop(error)

    def _bring(self, number: int, offset: int, buffer: memoryview) -> bool:
        """Stage one extent; False if the work was stopped before it was read."""
        task = self._tasks[number]
        first = offset // BLOCK_BYTES
        blocks = [
            buffer[at : at + length] for _, at, length in blocks_of(min(self._extent_bytes, task.file.size - offset))
        ]
        hashing = partial(self.tally.busy.measure, "hash")
        unseen = [at for at in range(len(blocks)) if not task.incoming.has_arrived(first + at)]
        with self.tally.busy.measure("write"):
            missing = [at for at in unseen if not task.incoming.recall(first + at, blocks[at], hashing)]
        missing_bytes = sum(len(blocks[at]) for at in missing)
        self.tally.count(sum(map(len, blocks)) - missing_bytes)
        self._watch.was_here(sum(len(blocks[at]) for at in unseen) - missing_bytes)
        if not missing:
            self._readers.forgo(number)
            return True
        with self._readers.reader_for(number) as reader:  # once: opened again, a file may be downloaded again
            for begin, end in runs_of(missing):
                run = blocks[begin:end]
                if self._queue.is_stopped_within(self._watch.pace(sum(map(len, run)))):
                    return False
                arriving = read_each(reader, offset + begin * BLOCK_BYTES, run, buffer[begin * BLOCK_BYTES :])
                with closing(arriving):
                    self._stage(task.incoming, first + begin, run, arriving)
        return True

    def _stage(self, incoming: Incoming, first: int, blocks: Sequence[memoryview], arriving: Iterator[int]) -> None:
        """Put each of ``blocks``, from block ``first`` of the file on, when its number is ``arriving``."""
        busy = self.tally.busy
        for at in measured(arriving, partial(busy.measure, "read")):
            self._watch.came(len(blocks[at]))
            with busy.measure("write"):
                incoming.put(first + at, blocks[at], partial(busy.measure, "hash"))
            self.tally.count(len(blocks[at]))

    def _settle(self, number: int, task: Task) -> None:
        """All blocks of a file are there: it is right, or is brought once more, or that was the second time."""
        done = task.incoming.finish(task.file.path)
        wrong = find_wrong(task.file, done) or task.incoming.find_unsigned()
        if wrong is None:
            # Git's sha1 is written down only where it was known: it names what git itself holds.
            task.done = done if task.file.git_sha1 else replace(done, git_sha1=None)
            if task.file.has_digest and len(done.blocks) > 1:  # of a single one it would save nobody anything
                task.incoming.vouch(done.blocks)
        else:
            task.incoming.discard()
            if task.attempts == _ATTEMPTS:
                raise refuse(self._offer, task.file.path, wrong)
            task.incoming = self._restage(task)
            task.attempts += 1
            self.tally.take_back(task.file)
        self._queue.settle(number, again=wrong is not None)
