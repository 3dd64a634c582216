"""One thread's way onto a CUDA device; see :mod:`fastload._place.cuda` for the streams it is in order with.

Where the device takes the digests, an extent has landed only when they were found right: the digests are copied back
behind it on the stream, and looked at when its slot is wanted again: nobody waits for the device who could read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastload._place.landing import LandingBuffer
from fastload._place.slots import DIGEST_BYTES
from fastload._place.stream_queue import StreamEvent
from fastload._plan.layout import round_up
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from fastload._place.cuda_memory import PinnedSlot
    from fastload._place.lane_stream import LaneStream
    from fastload._place.slots import Slots
    from fastload._plan.extent import Extent
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck

_DEVICE_HINT = "It is right on the host and wrong on the device: look for memory errors there (nvidia-smi -q -d ECC)"


@dataclass(frozen=True, slots=True)
class _Pending:
    """An extent whose digests are on their way back."""

    extent: Extent
    check: BlockCheck
    landed: Callable[[], None]


class _Taken(NamedTuple):
    """A slot that is being filled."""

    slot: PinnedSlot
    extent: Extent
    on_device: bool = False
    """True if storage fills the landing buffer instead."""


class CudaLane:
    """See :class:`~fastload._place.placer.Lane`."""

    _landing: LandingBuffer | None = None

    def __init__(self, way: LaneStream, slots: Slots) -> None:
        self._way = way
        self.placed = StreamEvent()
        """Set when somebody wants to wait for all that was queued so far."""
        self._supply = slots
        self.staging_bytes = 0
        """Of host memory, the most that it had."""
        self._slots: list[PinnedSlot] = []
        self._free: deque[PinnedSlot] = deque()
        self._taken: deque[_Taken] = deque()
        """In the order in which they will be placed."""
        self._flying: deque[tuple[PinnedSlot, _Pending | None]] = deque()
        """In the order of the stream."""
        try:
            self._add_slots()
        except BaseException:
            way.stream.synchronize()
            self._unpin()
            raise

    @property
    def stream(self) -> torch.cuda.Stream:
        """On which all is queued."""
        return self._way.stream

    def _add_slots(self) -> None:
        """As many as it begins with, pinned; where that is refused, which is for want of memory, one."""
        for _ in range(self._supply.at_first):
            slot = self._supply.make()
            if not slot.is_pinned:
                self._way.forget_error()
            if slot.is_pinned or not self._slots:
                self._add(slot)
            if not slot.is_pinned:
                return

    def _add(self, slot: PinnedSlot) -> None:
        self._slots.append(slot)
        self._free.append(slot)
        self.staging_bytes += slot.nbytes

    @property
    def takes_digests(self) -> bool:
        """See :class:`~fastload._place.placer.Lane`."""
        return self._way.takes_digests

    @property
    def has_room(self) -> bool:
        """See :class:`~fastload._place.placer.Lane`."""
        while self._flying and self._flying[0][0].free.is_over():
            self._settle_oldest()
        if not self._free and len(self._slots) < self._supply.per_lane:
            ready = self._supply.take_ready()
            if ready is not None:
                self._add(ready)
        return bool(self._free)

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        """See :class:`~fastload._place.placer.Lane`."""
        slot = self._take(extent)
        self._taken.append(_Taken(slot, extent))
        return [slot.memory[: round_up(extent.length, alignment_bytes)]]

    def device_memory_for(self, extent: Extent, files: CuFiles) -> DeviceMemory:
        """See :class:`~fastload._place.placer.Lane`; a slot is taken all the same, for its event and its room.

        Storage writes without asking any stream, so it waits here until the last extent has left that memory.
        """
        if self._landing is None:
            self._landing = LandingBuffer(self._way.device, self._way.staging_bytes, files)
        slot = self._take(extent)
        self._landing.free.synchronize()
        self._taken.append(_Taken(slot, extent, on_device=True))
        return self._landing.memory

    def _take(self, extent: Extent) -> PinnedSlot:
        """The next free slot, for ``extent``; the one that it has already, if it is tried another way."""
        if self._taken and self._taken[-1].extent is extent:
            return self._taken.pop().slot
        if not self.has_room:
            self._settle_oldest()
        return self._free.popleft()

    def place(self, landed: Callable[[], None], check: BlockCheck | None = None) -> None:
        """See :class:`~fastload._place.placer.Lane`."""
        if not self._taken:
            return
        slot, extent, on_device = self._taken.popleft()
        digests = check is not None
        if on_device and self._landing is not None:
            self._way.pass_on(self._landing.tensor, slot, extent, digests=digests)
            self._landing.free.record(self._way.stream)
        else:
            self._way.send(slot, 0, extent, digests=digests)
        self._flying.append((slot, None if check is None else _Pending(extent, check, landed)))
        if check is None:
            landed()

    def settle(self) -> None:
        """See :class:`~fastload._place.placer.Lane`."""
        while self._flying:
            self._settle_oldest()

    def _settle_oldest(self) -> None:
        """Wait until the oldest slot that is under way is free, and what was in it has landed."""
        slot, pending = self._flying[0]
        slot.free.wait()
        if pending is not None:
            expected = "".join(pending.check.digests)
            if slot.room[: len(expected) // 2].hex() != expected:
                self._mend_all(slot, pending)
            pending.check.passed()
            pending.landed()
        self._flying.popleft()
        self._free.append(slot)

    def _mend_all(self, slot: PinnedSlot, pending: _Pending) -> None:
        for number, (digest, found) in enumerate(zip(pending.check.digests, self._found(slot), strict=False)):
            if found != digest:
                self._mend(slot, pending, number, found)

    def _mend(self, slot: PinnedSlot, pending: _Pending, number: int, found: str) -> None:
        """Bring the right bytes of a block the same way, and look again what arrives."""
        block = pending.check.mend(number, found)
        begin = number * BLOCK_BYTES
        slot.memory[begin : begin + len(block)] = block
        extent = pending.extent._replace(offset=pending.extent.offset + begin, length=len(block))
        self._way.send(slot, begin, extent, digests=True)
        slot.free.wait()
        expected, again = pending.check.digests[number], next(self._found(slot))
        if again != expected:
            at, what = extent.offset, f"BLAKE3 {again} on {self._way.device}"
            raise IntegrityError(pending.check.path, at, what, expected, _DEVICE_HINT, block=at // BLOCK_BYTES)

    @staticmethod
    def _found(slot: PinnedSlot) -> Iterator[str]:
        """The digests in the room behind ``slot``."""
        for at in range(0, len(slot.room), DIGEST_BYTES):
            yield slot.room[at : at + DIGEST_BYTES].hex()

    def close(self) -> None:
        """See :class:`~fastload._place.placer.Lane`."""
        try:
            self._way.finish()
        finally:
            self._unpin()
            self._way.let_go()
            self._close_landing()

    def _close_landing(self) -> None:
        landing, self._landing = self._landing, None
        if landing is not None:
            landing.close()

    def _unpin(self) -> None:
        self._flying.clear()
        self._taken.clear()
        self._free.clear()
        while self._slots:
            self._slots.pop().unpin()
