"""Bringing the files of an offer in: threads read extents, digest and stage them; each file is settled by its digests.

::

    extents of all files, in order ─► read from the offer ─► digest ─► stage ─► last block: sync, compare ─► settled
                                      (or recalled: staged by an earlier run)        └─ not what it should be: once more

Nothing is published here (see :mod:`~fastload._store.admit.publish`): what was brought in when an error or Ctrl-C comes
waits in the journals for the next run.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

from fastload._address_space import map_private
from fastload._clock import Busy
from fastload._read.blocks import runs_of
from fastload._read.pool import ReaderPool
from fastload._read.reader import GradualReader
from fastload._thread import start_thread
from fastload._verify.difference import Difference, find_difference
from fastload._verify.digest import BLOCK_BYTES, blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from fastload._read.filedigests import Hashing
    from fastload._read.reader import Reader
    from fastload._store.admit.incoming import Incoming, Task
    from fastload._store.offer import Offer, OfferedFile
    from fastload._verify.manifest import ManifestFile

EXTENT_BLOCKS = 4
"""A request for less makes a far hub slow."""
_FILES_AT_ONCE = 4
_THREADS_PER_FILE = 2
"""While one reads, another digests."""
_JOIN_S = 0.8
_LOOK_S = 0.1
_ATTEMPTS = 2
_SHOWN = 8


@dataclass(slots=True)
class Tally:
    """What was done; threads add to it."""

    done_bytes: int = 0
    """Staged, recalled bytes included."""
    staging_bytes: int = 0
    """Memory that they take for it."""
    refetched_files: list[str] = field(default_factory=list)
    busy: Busy = field(default_factory=Busy)


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
        self.tally = Tally()
        self._changed = threading.Condition()
        self._queue: deque[tuple[int, int]] = deque()
        self._unsettled = 0
        self._error: BaseException | None = None
        self._is_stopped = False
        at_once = min(_FILES_AT_ONCE, max(1, offer.depth // _THREADS_PER_FILE))
        for first in range(0, len(tasks), at_once):
            self._enqueue(range(first, min(first + at_once, len(tasks))))
        extents = Counter(number for number, _ in self._queue)
        self._readers = ReaderPool(lambda number: offer.open(tasks[number].file), extents)

    def _enqueue(self, numbers: Sequence[int]) -> None:
        """Queue the extents of these files in turns: one file's sha256 is one core's work, several files' are more."""
        columns: list[list[tuple[int, int]]] = []
        for number in numbers:
            offsets = range(0, max(1, self._tasks[number].file.size), self._extent_bytes)
            self._tasks[number].unread = len(offsets)
            columns.append([(number, offset) for offset in offsets])
        self._queue.extend(extent for row in zip_longest(*columns) for extent in row if extent is not None)
        self._unsettled += len(numbers)

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
            deadline_s = time.monotonic() + _JOIN_S
            for thread in threads:
                if thread.is_alive():
                    thread.join(max(0.0, deadline_s - time.monotonic()))
        if self._error is not None:
            raise self._error

    def _wait(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._is_over, timeout=_LOOK_S)
                is_over = self._is_over()
            self._watch.tell(self.tally)
            if is_over:
                return

    def _is_over(self) -> bool:
        return self._is_stopped or not self._unsettled

    def _stop(self) -> None:
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._readers.close()

    def _work(self) -> None:
        try:
            buffer = memoryview(map_private(self._extent_bytes))
            while (extent := self._next()) is not None:
                number, offset = extent
                if self._bring(number, offset, buffer):
                    self._count_down(number)
        except BaseException as error:  # noqa: BLE001 - it travels to the caller's thread, whatever it is
            with self._changed:
                self._error = self._error or error
                self._is_stopped = True
                self._changed.notify_all()

    def _next(self) -> tuple[int, int] | None:
        """Waits while others settle files, since what they find may have to be read again."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over() or self._queue)
            return None if self._is_over() else self._queue.popleft()

    def _bring(self, number: int, offset: int, buffer: memoryview) -> bool:
        """Stage one extent; False if the work was stopped before it was read."""
        task = self._tasks[number]
        first = offset // BLOCK_BYTES
        blocks = [
            buffer[at : at + length] for _, at, length in blocks_of(min(self._extent_bytes, task.file.size - offset))
        ]
        hashing = partial(self.tally.busy.measure, "hash")
        with self.tally.busy.measure("write"):
            missing = [at for at, block in enumerate(blocks) if not task.incoming.recall(first + at, block, hashing)]
        recalled_bytes = sum(map(len, blocks)) - sum(len(blocks[at]) for at in missing)
        with self._changed:
            self.tally.done_bytes += recalled_bytes
        self._watch.was_here(recalled_bytes)
        if not missing:
            self._readers.forgo(number)
            return True
        with self._readers.reader_for(number) as reader:  # once: opened again, a file may be downloaded again
            for begin, end in runs_of(missing):
                run = blocks[begin:end]
                if self._is_stopped_within(self._watch.pace(sum(map(len, run)))):
                    return False
                arriving = _read(reader, offset + begin * BLOCK_BYTES, run, buffer[begin * BLOCK_BYTES :])
                with closing(arriving):
                    self._stage(task.incoming, first + begin, run, arriving)
        return True

    def _stage(self, incoming: Incoming, first: int, blocks: Sequence[memoryview], arriving: Iterator[int]) -> None:
        """Put each of ``blocks``, from block ``first`` of the file on, when its number is ``arriving``."""
        busy = self.tally.busy
        for at in _measured(arriving, partial(busy.measure, "read")):
            self._watch.came(len(blocks[at]))
            with busy.measure("write"):
                incoming.put(first + at, blocks[at], partial(busy.measure, "hash"))
            with self._changed:
                self.tally.done_bytes += len(blocks[at])

    def _is_stopped_within(self, seconds: float) -> bool:
        if seconds <= 0:
            return self._is_stopped
        with self._changed:
            return self._changed.wait_for(lambda: self._is_stopped, timeout=seconds)

    def _count_down(self, number: int) -> None:
        task = self._tasks[number]
        with self._changed:
            task.unread -= 1
            is_last = not task.unread
        if is_last:
            self._settle(number, task)

    def _settle(self, number: int, task: Task) -> None:
        """All blocks of a file are there: it is right, or is brought once more, or that was the second time."""
        done = task.incoming.finish(task.file.path)
        wrong = find_wrong(task.file, done)
        if wrong is None:
            # Git's sha1 is written down only where it was known: it names what git itself holds.
            task.done = done if task.file.git_sha1 else replace(done, git_sha1=None)
            if task.file.has_digest:
                task.incoming.vouch(done.blocks)
        else:
            task.incoming.discard()
            if task.attempts == _ATTEMPTS:
                name = f"{self._offer.repo}/{task.file.path}"
                hint = (
                    f"It came wrong from {self._offer.tier} twice: its copy there is damaged. Fetch it from elsewhere"
                )
                raise wrong.as_error(name, hint)
            task.incoming = self._restage(task)
            task.attempts += 1
        with self._changed:
            if wrong is not None:
                self.tally.refetched_files.append(task.file.path)
                self.tally.done_bytes -= task.file.size
                self._enqueue([number])
            self._unsettled -= 1
            self._changed.notify_all()


def find_wrong(expected: OfferedFile, found: ManifestFile) -> Difference | None:
    """What is wrong with a file, as precisely as its tier allows to say; None: nothing."""
    pairs = zip(expected.blocks or found.blocks, found.blocks, strict=True)
    bad = [number for number, (wanted, digest) in enumerate(pairs) if wanted != digest]
    if bad:
        numbers = ", ".join(map(str, bad[:_SHOWN])) + (", …" if len(bad) > _SHOWN else "")
        return Difference(f"other bytes in block {numbers}", "those of its manifest", bad[0] * BLOCK_BYTES)
    return find_difference(expected, found)


def _read(reader: Reader, offset: int, blocks: Sequence[memoryview], room: memoryview) -> Generator[int, None, None]:
    """Fill ``blocks``, the beginning of ``room``, and give the number of each that is there.

    What a slow line has brought is staged before the rest of the extent comes: an extent may take minutes, and who is
    killed meanwhile would fetch all of it again. A reader that must be aligned may ask for a little more room.
    """
    if isinstance(reader, GradualReader):
        yield from reader.read_each(offset, blocks)
        return
    nbytes = sum(map(len, blocks))
    reader.read_into(offset, [room[: -(-nbytes // reader.alignment_bytes) * reader.alignment_bytes]])
    yield from range(len(blocks))


def _measured(numbers: Iterator[int], measuring: Hashing) -> Iterator[int]:
    """``numbers``, each of which is waited for in ``measuring()``."""
    while True:
        with measuring():
            number = next(numbers, None)
        if number is None:
            return
        yield number
