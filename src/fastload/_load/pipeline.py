"""Workers that carry out a plan: read an extent, place it, take the next.

A worker is a thread: reads and copies release the GIL, so threads are the depth that storage sees. The rest is in order
(:mod:`~fastload._load.schedule`), open (:mod:`~fastload._load.sources`) and memory (:mod:`fastload._place`).
"""

from __future__ import annotations

import threading
import time
import traceback
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from fastload._read.proof import BlockProof
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from fastload._clock import Busy
    from fastload._fetch.deadline import Deadline
    from fastload._load.device_reads import DeviceReads
    from fastload._load.schedule import Schedule
    from fastload._load.sources import Sources
    from fastload._place.placer import Lane, Placer
    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._read.reader import Reader

_JOIN_S = 0.8
"""How long closing waits for reads under way: Ctrl-C promises a second, and a dead mount may hold one for ever."""


class Pipeline:
    """The workers of one load."""

    def __init__(
        self,
        plan: Plan,
        sources: Sources,
        placer: Placer,
        schedule: Schedule,
        busy: Busy,
        device_reads: DeviceReads | None = None,
    ) -> None:
        self._plan = plan
        self._sources = sources
        self._placer = placer
        self._schedule = schedule
        self._busy = busy
        self._device_reads = device_reads
        self._threads: list[threading.Thread] = []

    def start(self, thread_count: int) -> None:
        """Begin to read, by fewer threads where the system does not grant so many.

        Raises:
            UnsupportedError: it grants none.
        """
        if self._device_reads is not None:
            self._device_reads.begin()
        for number in range(min(thread_count, len(self._plan.extents))):
            # Daemons, because a read that hangs in the kernel must not keep the interpreter from ending.
            thread = threading.Thread(target=self._work, name=f"fastload-{number}", daemon=True)
            self._threads.append(thread)
            try:
                thread.start()
            except RuntimeError as exc:
                self._threads.pop()
                if not self._threads:
                    hint = "Raise its limit: ulimit -u, or pids.max of the cgroup (a container's pids limit)"
                    raise UnsupportedError("the system lets this process start no thread", hint) from exc
                return

    def is_worker(self) -> bool:
        """True on one of the threads that read."""
        return threading.current_thread() in self._threads

    def close(self) -> None:
        """Stop the workers, wait for what they are doing, close the readers.

        A worker stuck in a read is left behind: it owns what it reads into, and cleans up after itself should the
        read ever return.
        """
        self._schedule.stop()
        deadline_s = time.monotonic() + _JOIN_S
        for thread in self._threads:
            if thread.is_alive():  # not so where Ctrl-C came before it was started, and joining it would be an error
                thread.join(max(0.0, deadline_s - time.monotonic()))
        self._schedule.forget_error()
        self._sources.close()
        if self._device_reads is not None:
            self._device_reads.close()

    def join(self, deadline: Deadline) -> None:
        """Wait until the workers have ended by themselves, as they do when all is placed; raise the first error."""
        for thread in self._threads:
            thread.join(deadline.left_s)
            while thread.is_alive():
                deadline.check()
                thread.join(deadline.left_s)
        self._schedule.check()

    def _work(self) -> None:
        try:
            with closing(self._open_lane()) as lane:
                while (number := self._next(lane)) is not None:
                    self._bring(number, lane)
        except BaseException as error:  # noqa: BLE001 - it travels to the caller's thread, whatever it is
            traceback.clear_frames(error.__traceback__)  # an ExitStack's frame holds it, and both hold all memory
            self._schedule.fail(error)

    def _open_lane(self) -> Lane:
        with self._busy.measure("copy", "open a lane"):
            return self._placer.open_lane(self._busy.trace)

    def _next(self, lane: Lane) -> int | None:
        with self._busy.measure("wait", "wait for room"):
            return self._schedule.start(partial(self._settle, lane))

    def _settle(self, lane: Lane) -> None:
        with self._busy.measure("copy", "settle"):
            lane.settle()

    def _bring(self, number: int, lane: Lane) -> None:
        extent = self._plan.extents[number]
        with ExitStack() as held:
            with self._busy.measure("read", "open"):
                reader = held.enter_context(self._sources.reader_for(extent.shard))
            check = None
            if isinstance(reader, BlockProof) and lane.takes_digests:
                check = reader.check(extent.offset, extent.length)
            is_checked = check is not None or not isinstance(reader, BlockProof)
            if not self._bring_past_host(extent, lane, is_checked=is_checked):
                self._read(reader, extent, lane, check)
            with self._busy.measure("copy", "place"):
                lane.place(partial(self._schedule.finish, number), check)

    def _bring_past_host(self, extent: Extent, lane: Lane, *, is_checked: bool) -> bool:
        """True if storage has written ``extent`` to the device itself."""
        if self._device_reads is None or not self._device_reads.is_on:
            return False

        def memory_for(files: CuFiles) -> DeviceMemory:
            with self._busy.measure("copy", "wait for device memory"):
                return lane.device_memory_for(extent, files)

        with self._busy.measure("read", "read (cufile)", _facts(extent)):
            return self._device_reads.bring(extent, memory_for, is_checked=is_checked)

    def _read(self, reader: Reader, extent: Extent, lane: Lane, check: BlockCheck | None) -> None:
        alignment_bytes = reader.alignment_bytes
        with self._busy.measure("copy", "wait for a slot"):
            buffers = lane.buffers_for(extent, alignment_bytes)
        with self._busy.measure("read", f"read ({reader.name})", _facts(extent)):
            if isinstance(reader, BlockProof) and check is not None:
                reader.read_unproven(extent.offset, buffers)
            else:
                reader.read_into(extent.offset, buffers)


def _facts(extent: Extent) -> dict[str, object]:
    return {"shard": extent.shard, "offset": extent.offset, "bytes": extent.length}
