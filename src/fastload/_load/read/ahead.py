"""Files in memory, on their way to a device: one thread has many extents read at once, and does all the rest itself.

The C library's threads read (:mod:`fastload._read.background`); they know nothing of Python, so the one who takes what
has come never stands in line for the GIL, and its code stays in one CPU's cache. Sixteen threads that do both, each for
itself, came to a third of what the link to an H200 takes. Not for disks, nor for what a server gives: the wait is for
them there, not for the GIL, and a read that hangs there must not hold up others.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastload._read.background import can_read_in_background, limit_threads
from fastload._read.choose import background_depth
from fastload._read.proof import BlockProof
from fastload._read.reader import begin_read
from fastload._trace import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._load.read.own_lane import Lanes
    from fastload._place.placer import Lane
    from fastload._plan.extent import Extent
    from fastload._read.choose import Choice
    from fastload._read.proof import BlockCheck
    from fastload._read.reader import Attempt, Reader

_ROWS = 32
"""Of a trace: more than extents that can be under way."""


def may_read_ahead(fetched: Fetched, choices: Mapping[int, Choice]) -> bool:
    """True where all that is read is in memory, and nobody but the device, or nobody, digests it."""
    digests_blocks = fetched.evidence.has_blocks or not fetched.evidence.files
    in_memory = bool(choices) and all(choice.is_in_memory for choice in choices.values())
    may_copy = fetched.tier.is_lower
    return not may_copy and digests_blocks and in_memory and can_read_in_background()


@dataclass(frozen=True, slots=True)
class _Read:
    """One extent that is being read."""

    number: int
    extent: Extent
    reader: Reader
    lane: Lane
    buffer: memoryview
    check: BlockCheck | None
    attempt: Attempt | None
    """None: it could not be begun, and is read when its turn comes."""
    begin_s: float


class Ahead:
    """The work of that one thread; see :class:`~fastload._load.read.workplace.Worker`."""

    def __init__(self, lanes: Lanes, count: int) -> None:
        """``count``: of its lanes, which are opened as they are wanted."""
        self._lanes = lanes
        self._count = count
        self._plan = lanes.at.plan
        self._sources = lanes.at.sources
        self._schedule = lanes.at.schedule
        self._busy = lanes.at.busy
        self._under_way: deque[_Read] = deque()

    def run(self) -> None:
        """Bring all extents that the schedule gives."""
        lanes = _InTurn(self._lanes.open, self._count)
        try:
            while not self._schedule.is_stopped():
                if not self._under_way:
                    number = self._wait_for_next(lanes)
                    if number is None:
                        return
                    self._begin(number, lanes)
                self._begin_more(lanes)
                self._land(lanes)
        finally:
            self._abandon()
            for lane in lanes.opened:
                lane.close()

    def _wait_for_next(self, lanes: _InTurn) -> int | None:
        """The next extent; None: there is nothing left.

        Who waits for room in the window must owe nothing that the caller may wait for: nothing is under way here.
        """
        with self._busy.measure("wait", "wait for room"):
            return self._schedule.start(partial(self._settle, lanes.opened))

    def _begin_more(self, lanes: _InTurn) -> None:
        """All whose turn has come, and for which there is room."""
        while lanes.next.has_room and (number := self._schedule.start_now()) is not None:
            self._begin(number, lanes)

    def _settle(self, lanes: list[Lane]) -> None:
        with self._busy.measure("copy", "settle"):
            for lane in lanes:
                lane.settle()

    def _begin(self, number: int, lanes: _InTurn) -> None:
        extent, lane = self._plan.extents[number], lanes.next
        reader = self._sources.lend(extent.shard)
        try:
            with self._busy.measure("copy", "wait for a slot"):
                (buffer,) = lane.buffers_for(extent, reader.alignment_bytes)
            check = None
            if isinstance(reader, BlockProof) and lane.takes_digests:
                check = reader.check(extent.offset, extent.length)
            attempt = begin_read(reader, extent.offset, buffer)
        except BaseException:
            self._sources.take_back(extent.shard, None)
            raise
        self._under_way.append(_Read(number, extent, reader, lane, buffer, check, attempt, time.perf_counter()))
        lanes.go_on()

    def _land(self, lanes: _InTurn) -> None:
        """Take the oldest of what is under way, and send it on: readers get their next work first."""
        read = self._under_way.popleft()
        served = None
        try:
            with self._busy.measure("read", f"read ({read.reader.name})"):
                is_whole = read.attempt is not None and read.attempt.finish()
            try:
                self._begin_more(lanes)
            finally:  # of two errors, that of the earlier bytes is told
                self._prove(read, is_whole=is_whole)
            with self._busy.measure("copy", "place"):
                read.lane.place(partial(self._schedule.finish, read.number), read.check)
            served = read.reader
        finally:
            self._sources.take_back(read.extent.shard, served)
        self._tell(read)

    def _prove(self, read: _Read, *, is_whole: bool) -> None:
        """Read in the ordinary way what did not come, and digest it unless the device does."""
        reader, offset, buffers = read.reader, read.extent.offset, [read.buffer]
        if not is_whole:
            with self._busy.measure("read", f"read again ({reader.name})"):
                if isinstance(reader, BlockProof) and read.check is not None:
                    reader.read_unproven(offset, buffers)
                else:
                    reader.read_into(offset, buffers)
        elif isinstance(reader, BlockProof) and read.check is None:
            reader.prove_alone(offset, buffers)

    def _tell(self, read: _Read) -> None:
        trace = self._busy.trace
        if trace is not None:
            row = f"read in the background, {read.number % _ROWS}"
            facts = {"shard": read.extent.shard, "offset": read.extent.offset, "bytes": read.extent.length}
            trace.add(Span(row, "read", "read", read.begin_s, time.perf_counter(), facts))

    def _abandon(self) -> None:
        while self._under_way:
            read = self._under_way.popleft()
            if read.attempt is not None:
                read.attempt.abandon()
            self._sources.take_back(read.extent.shard, None)


class _InTurn:
    """Lanes that take turns, the first time each is opened."""

    def __init__(self, open_lane: Callable[[], Lane], count: int) -> None:
        self._open_lane = open_lane
        self._count = count
        self.opened: list[Lane] = []
        self._turn = 0

    @property
    def next(self) -> Lane:
        """The one whose turn it is."""
        if self._turn == len(self.opened):
            self.opened.append(self._open_lane())
            if len(self.opened) == 1:  # which has led this thread, and all that it begins, to the CPUs near the device
                limit_threads(background_depth())
        return self.opened[self._turn]

    def go_on(self) -> None:
        """The next one's turn."""
        self._turn = (self._turn + 1) % self._count
