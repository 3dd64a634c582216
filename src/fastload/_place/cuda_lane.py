"""One thread's way onto a CUDA device; see :mod:`fastload._place.cuda` for the streams it is in order with.

Where the device takes the digests, an extent has landed only when they were found right: the digests are copied back
behind it on the stream, and looked at when its slot is wanted again: nobody waits for the device who could read.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from fastload._place.cuda_memory import allocate_on
from fastload._place.landing import LandingBuffer
from fastload._place.slots import DIGEST_BYTES
from fastload._place.stream_queue import StreamEvent, StreamQueue
from fastload._place.stream_spans import StreamSpans
from fastload._plan.layout import NOWHERE, round_up
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fastload._place.cuda_memory import Arena, PinnedSlot, Place
    from fastload._place.placer import Arenas
    from fastload._place.slots import Slots
    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._trace import Trace

    Digesting = Callable[[int], "Digester | None"]
    """Gives a digester for buffers of so many bytes, under the current stream; None: not yet, or never."""

_UNSEEN = contextlib.nullcontext()
_DEVICE_HINT = "It is right on the host and wrong on the device: look for memory errors there (nvidia-smi -q -d ECC)"


class Digester(Protocol):
    """See :class:`fastload._place.gpu_digest.BlockDigester`."""

    def digest_on(self, stream: torch.cuda.Stream, buffer: torch.Tensor, length: int) -> torch.Tensor:
        """The digests of the blocks in ``buffer``, in the order of ``stream``; until the next call."""


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

    _digester: Digester | None = None
    _spans: StreamSpans | None = None
    _landing: LandingBuffer | None = None
    _waited_for: StreamEvent | None = None

    def __init__(
        self,
        plan: Plan,
        arenas: Arenas[Arena],
        device: torch.device,
        slots: Slots,
        digesting: Digesting | None,
    ) -> None:
        self._plan = plan
        self._arenas = arenas
        self._device = device
        self._digesting = digesting
        self.stream = torch.cuda.Stream(device)
        self.placed = StreamEvent()
        """Set when somebody wants to wait for all that was queued so far."""
        self._queue = StreamQueue(self.stream)
        self._staging = allocate_on(device, slots.nbytes)
        self.stream.wait_stream(torch.cuda.current_stream(device))
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
            self.stream.synchronize()
            self._unpin()
            raise
        self._entered: dict[int, Place] = {}
        """Arenas that this stream has waited for."""

    def tell(self, trace: Trace, row: str) -> None:
        """Tell ``trace``, when the lane is closed, what its stream did from now on, in a ``row`` of its own."""
        self._spans = StreamSpans(trace, self.stream, f"{self._device}, {row}")

    def _span(self, name: str) -> AbstractContextManager[None]:
        return _UNSEEN if self._spans is None else self._spans.span(name)

    def _add_slots(self) -> None:
        """As many as it begins with, pinned; where that is refused, which is for want of memory, one."""
        for _ in range(self._supply.at_first):
            slot = self._supply.make()
            if not slot.is_pinned:
                self._forget_error()
            if slot.is_pinned or not self._slots:
                self._add(slot)
            if not slot.is_pinned:
                return

    def _add(self, slot: PinnedSlot) -> None:
        self._slots.append(slot)
        self._free.append(slot)
        self.staging_bytes += slot.nbytes

    def _forget_error(self) -> None:
        """Clear the thread's last CUDA error, which torch reports and clears after any copy on a device.

        The copy itself is carried out, so it must be in order with those to come.
        """
        with contextlib.suppress(RuntimeError), torch.cuda.stream(self.stream):
            self._staging[:1].copy_(self._staging[1:2])

    @property
    def takes_digests(self) -> bool:
        """See :class:`~fastload._place.placer.Lane`."""
        if self._digester is None and self._digesting is not None:
            with torch.cuda.stream(self.stream):
                self._digester = self._digesting(self._staging.numel())
        return self._digester is not None

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
            self._landing = LandingBuffer(self._device, self._staging.numel(), files)
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
        digester = None if check is None else self._digester
        if on_device and self._landing is not None:
            self._pass_on(self._landing.tensor, slot, extent, digester)
            self._landing.free.record(self.stream)
        else:
            self._send(slot, 0, extent, digester)
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
        self._send(slot, begin, extent, self._digester)
        slot.free.wait()
        expected, again = pending.check.digests[number], next(self._found(slot))
        if again != expected:
            at, what = extent.offset, f"BLAKE3 {again} on {self._device}"
            raise IntegrityError(pending.check.path, at, what, expected, _DEVICE_HINT, block=at // BLOCK_BYTES)

    def _send(self, slot: PinnedSlot, begin: int, extent: Extent, digester: Digester | None) -> None:
        """Queue what lies in ``slot`` from ``begin`` on, the bytes of ``extent``, on its way."""
        with self._span("host to device"):
            of = slot.address + begin
            self._queue.copy_in(self._staging.data_ptr(), of, extent.length, is_pinned=slot.is_pinned)
        self._pass_on(self._staging, slot, extent, digester)

    def _pass_on(self, buffer: torch.Tensor, slot: PinnedSlot, extent: Extent, digester: Digester | None) -> None:
        """Queue what follows once ``extent`` lies in ``buffer`` on the device; digests come to the room of ``slot``."""
        if digester is not None:
            with self._span("digest"):
                digests = digester.digest_on(self.stream, buffer, extent.length)
                room = slot.address + slot.nbytes
                self._queue.copy_out(room, digests.data_ptr(), digests.nbytes, is_pinned=slot.is_pinned)
        slot.free.set_on(self.stream)
        with self._span("scatter"):
            self._scatter(buffer.data_ptr(), extent)

    @staticmethod
    def _found(slot: PinnedSlot) -> Iterator[str]:
        """The digests in the room behind ``slot``."""
        for at in range(0, len(slot.room), DIGEST_BYTES):
            yield slot.room[at : at + DIGEST_BYTES].hex()

    def _scatter(self, at: int, extent: Extent) -> None:
        """Queue the pieces of ``extent``, which lies at address ``at`` on the device, on their way to their arenas."""
        for arena, offset, length in self._plan.cut(extent):
            if arena != NOWHERE:
                where = self._entered.get(arena) or self._enter(arena)
                if where.is_on_host:
                    self._queue.copy_out(where.address + offset, at, length, is_pinned=False)
                else:
                    self._queue.copy_within(where.address + offset, at, length)
            at += length

    def _enter(self, arena: int) -> Place:
        """Its memory, which the stream may write to from here on."""
        _, place, usable = self._arenas.get(arena)
        if usable is not self._waited_for:
            usable.hold_back(self.stream)
            self._waited_for = usable
        self._entered[arena] = place
        return place

    def close(self) -> None:
        """See :class:`~fastload._place.placer.Lane`.

        Waits for the whole stream: after an error, copies may be queued that no event was recorded behind.
        """
        try:
            self.stream.synchronize()
            if self._spans is not None:
                self._spans.tell()
        finally:
            self._unpin()
            self._staging = self._staging.new_empty(0)
            self._digester = None
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
