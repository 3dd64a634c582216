"""Workers that carry out a plan: read an extent, place it, take the next.

A worker is a thread: reads and copies release the GIL, so threads are the depth that storage sees. The rest is in order
(:mod:`~fastload._load.read.schedule`), open (:mod:`~fastload._load.read.sources`) and memory (:mod:`fastload._place`).
"""

from __future__ import annotations

import threading
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from fastload._clock import PEERS
from fastload._load.read.ahead import Ahead
from fastload._load.read.exchange import LeftError
from fastload._read.proof import BlockProof
from fastload._thread import start_thread
from fastload.errors import GroupError, UnsupportedError
from fastload.report import EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._clock import Busy
    from fastload._fetch.deadline import Deadline
    from fastload._load.read.device_reads import DeviceReads
    from fastload._load.read.exchange import Exchange
    from fastload._load.read.schedule import Schedule
    from fastload._load.read.sources import Sources
    from fastload._place.placer import Lane, Placer
    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._read.reader import Reader

_JOIN_S = 0.8
"""How long closing waits for reads under way: Ctrl-C promises a second, and a dead mount may hold one for ever."""


_LEFT_HINT = "Let ranks on machines with the model take all tensors, or bring the model up on all machines"


@dataclass(frozen=True, slots=True)
class Ways:
    """By which bytes come and go besides readers and lanes."""

    device_reads: DeviceReads | None
    """Past the host."""
    exchange: Exchange | None
    """From and to the other ranks of a group."""
    ahead_lanes: int = 0
    """By so many lanes of one thread, while others read; 0: each thread reads, and has a lane of its own."""
    makes_pages: bool = False
    """True if a thread makes the pages of memory that is copied into, ahead of those who copy."""


class Pipeline:
    """The workers of one load."""

    def __init__(
        self,
        plan: Plan,
        sources: Sources,
        placer: Placer,
        schedule: Schedule,
        busy: Busy,
        ways: Ways,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._placer = placer
        self._schedule = schedule
        self._busy = busy
        self._exchange = ways.exchange
        self._device_reads = ways.device_reads
        self._ahead_lanes = ways.ahead_lanes
        self._makes_pages = ways.makes_pages
        self._threads: list[threading.Thread] = []

    def start(self, thread_count: int) -> None:
        """Begin to read, by fewer threads where the system does not grant so many.

        Raises:
            UnsupportedError: it grants none; or not one for each rank that sends.
        """
        if self._device_reads is not None:
            self._device_reads.begin()
        readers: list[Callable[[], None]] = [self._work] * min(thread_count, len(self._plan.extents))
        if self._ahead_lanes:
            readers = [self._work_ahead]
        receivers: list[Callable[[], None]] = []
        if self._exchange is not None:
            receivers = [partial(self._receive, self._exchange, source) for source in self._exchange.sources]
            readers = readers if self._exchange.can_read else []
        others = [self._make_pages] if self._makes_pages else []
        for number, target in enumerate([*receivers, *readers, *others]):
            # Daemons, because a read that hangs in the kernel must not keep the interpreter from ending.
            thread = threading.Thread(target=target, name=f"fastload-{number}", daemon=True)
            self._threads.append(thread)
            try:
                start_thread(thread)
            except UnsupportedError:
                self._threads.pop()
                if number < len(receivers) + min(1, len(readers)):
                    raise
                return

    def is_worker(self) -> bool:
        """True on one of the threads that read."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """Stop the workers, wait for what they are doing, close the readers.

        A worker stuck in a read is left behind: it owns what it reads into, and cleans up after itself should the
        read ever return.
        """
        with ExitStack() as undo:  # Ctrl-C ends the waiting, and nothing else
            if self._device_reads is not None:
                undo.callback(self._device_reads.close)
            undo.callback(self._sources.close)
            undo.callback(self._schedule.forget_error)
            self._schedule.stop()
            deadline_s = time.monotonic() + _JOIN_S
            for thread in self._threads:
                if thread.is_alive():  # not so where Ctrl-C came before it was started: joining it would be an error
                    thread.join(max(0.0, deadline_s - time.monotonic()))

    def join(self, deadline: Deadline) -> None:
        """Wait until the workers have ended by themselves, as they do when all is placed; raise the first error."""
        for thread in self._threads:
            thread.join(deadline.next_look_s)
            while thread.is_alive():
                deadline.check()
                thread.join(deadline.next_look_s)
        self._schedule.check()

    def _work(self) -> None:
        try:
            with _Lanes(self) as lanes:
                while (number := self._next(lanes.current)) is not None:
                    self._bring(number, lanes.current)
        except BaseException as error:  # noqa: BLE001 - it travels to the caller's thread, whatever it is
            self._fail(error)

    def _work_ahead(self) -> None:
        try:
            ahead = Ahead(self._plan, self._sources, self._schedule, self._busy)
            ahead.run(partial(self.open_lane, passing=False), self._ahead_lanes)
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _make_pages(self) -> None:
        try:
            for _ in self._placer.make_pages():
                if self._schedule.is_stopped() or self._schedule.has_begun_all:
                    return
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _receive(self, exchange: Exchange, source: int) -> None:
        """Bring what one other rank sends."""
        last = -1
        try:
            with _Lanes(self) as lanes:
                for number, reader in exchange.arrivals(source):
                    if not self._schedule.wait_room(number):
                        return
                    self._take_in(number, reader, lanes.current)
                    last = number
        except LeftError:
            if not self._schedule.has_left():
                self._take_over(exchange, source, last)
        except BaseException as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _take_over(self, exchange: Exchange, source: int, last: int) -> None:
        missing = exchange.missing_after(source, last)
        if exchange.can_read:
            self._sources.expect([self._plan.extents[number] for number in missing])
            self._schedule.take_over(missing)
        elif missing:
            self._fail(GroupError(f"rank {source} left, and this machine does not have the model", _LEFT_HINT))

    def _fail(self, error: BaseException) -> None:
        traceback.clear_frames(error.__traceback__)  # a frame holds it, and both hold all memory
        is_first = not self._schedule.is_stopped()
        self._schedule.fail(error)  # first, since telling the others ends what other threads are waiting for
        if self._exchange is not None and is_first:
            self._exchange.fail(error)

    def _next(self, lane: Lane) -> int | None:
        activity = PEERS if self._schedule.waits_for_others() else "wait"
        with self._busy.measure(activity, "wait for room"):
            return self._schedule.start(partial(self._settle, lane))

    def _settle(self, lane: Lane) -> None:
        with self._busy.measure("copy", "settle"):
            lane.settle()

    def _bring(self, number: int, lane: Lane) -> None:
        extent = self._plan.extents[number]
        with self._sources.reader_for(extent.shard) as reader:
            check = None
            is_checked = True
            if isinstance(reader, BlockProof):
                # What others wait for must be proven before it is sent.
                is_checked = lane.takes_digests and not self._sends(number)
                check = reader.check(extent.offset, extent.length) if is_checked else None
            if not self._bring_past_host(extent, lane, is_checked=is_checked):
                self._pass_on(number, self._read(reader, extent, lane, check))
            with self._busy.measure("copy", "place"):
                lane.place(partial(self._schedule.finish, number), check)

    def _take_in(self, number: int, reader: Reader, lane: Lane) -> None:
        """Bring what another rank has read and proven."""
        extent = self._plan.extents[number]
        with self._busy.measure("copy", "wait for a slot"):
            buffers = lane.buffers_for(extent, reader.alignment_bytes)
        with self._busy.measure(EXCHANGE, "receive", partial(_facts, extent)):
            reader.read_into(extent.offset, buffers)
        self._pass_on(number, buffers)
        with self._busy.measure("copy", "place"):
            lane.place(partial(self._schedule.finish, number, is_read=False))

    def _sends(self, number: int) -> bool:
        return self._exchange is not None and self._exchange.sends(number)

    def _pass_on(self, number: int, buffers: Sequence[memoryview]) -> None:
        if self._exchange is not None and self._exchange.sends(number):
            with self._busy.measure(EXCHANGE, "send"):
                self._exchange.pass_on(number, buffers, lambda: self._busy.measure(PEERS, "wait for a turn to send"))

    def _bring_past_host(self, extent: Extent, lane: Lane, *, is_checked: bool) -> bool:
        """True if storage has written ``extent`` to the device itself."""
        if self._device_reads is None or not self._device_reads.is_on:
            return False

        def memory_for(files: CuFiles) -> DeviceMemory:
            with self._busy.measure("copy", "wait for device memory"):
                return lane.device_memory_for(extent, files)

        with self._busy.measure("read", "read (cufile)", partial(_facts, extent)):
            return self._device_reads.bring(extent, memory_for, is_checked=is_checked)

    def _read(self, reader: Reader, extent: Extent, lane: Lane, check: BlockCheck | None) -> Sequence[memoryview]:
        alignment_bytes = reader.alignment_bytes
        with self._busy.measure("copy", "wait for a slot"):
            buffers = lane.buffers_for(extent, alignment_bytes)
        with self._busy.measure("read", f"read ({reader.name})", partial(_facts, extent)):
            if isinstance(reader, BlockProof) and check is not None:
                reader.read_unproven(extent.offset, buffers)
            else:
                reader.read_into(extent.offset, buffers)
        return buffers

    def leave(self) -> None:
        """Take nothing more, but go on reading and sending what other ranks wait for; they are to be told."""
        if self._exchange is not None:
            self._schedule.leave()
            self._exchange.leave()

    def open_lane(self, *, passing: bool) -> Lane:
        """A lane of the calling thread's own: into the caller's memory, or for what only passes through."""
        placer = self._exchange.passing if passing and self._exchange is not None else self._placer
        with self._busy.measure("copy", "open a lane"):
            return placer.open_lane(self._busy.trace)

    def has_left(self) -> bool:
        """True once nothing that is read stays here."""
        return self._schedule.has_left()


class _Lanes:
    """One thread's lane, which is another one from when the caller takes nothing more."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._is_passing = pipeline.has_left()
        self._lane = pipeline.open_lane(passing=self._is_passing)

    @property
    def current(self) -> Lane:
        """The lane for the next extent."""
        if self._pipeline.has_left() and not self._is_passing:
            self._lane.close()
            self._is_passing = True
            self._lane = self._pipeline.open_lane(passing=True)
        return self._lane

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.close()


def _facts(extent: Extent) -> dict[str, object]:
    return {"shard": extent.shard, "offset": extent.offset, "bytes": extent.length}
