"""Placing on a CUDA device: pinned host slot → device staging slot → scattered to the arenas.

The staging slot holds the extent as it lies in the file, so alignment costs nothing: the host-to-device copy is one
large one, and the device-to-device copies that bring each piece to its aligned place run at memory bandwidth. Each lane
has its own stream, and an event per slot says when that slot may be filled again; nothing synchronises the device.

Arenas belong to the *home* stream, the caller's. torch's allocator gives freed memory of a stream to the next one who
asks on that stream, without waiting. So a lane waits for what the home stream did with an arena's memory before, and
whoever takes a tensor waits for the lanes first; if that is another stream than home, the allocator is told.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import torch

from fastload._place.budget import Headroom
from fastload._place.memory import map_staging
from fastload._place.placer import Arenas
from fastload._place.tensors import is_castable, view_bytes
from fastload._plan.layout import NOWHERE, round_up
from fastload.errors import MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan

_SLOTS_PER_LANE = 2
"""One is being filled from storage while the other is being copied from."""
_REGISTER_PORTABLE = 1


def device_headroom(device: torch.device, device_bytes: int | None) -> Headroom:
    """What the device has left, torch's own unused reserve counted in; ``device_bytes`` may bound it further."""
    free, _ = torch.cuda.mem_get_info(device)
    reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    available = free + reserve
    if device_bytes is not None and device_bytes < available:
        return Headroom("the setting device_bytes", device_bytes)
    return Headroom(f"the free memory of {device}", available)


def allocate_on(device: torch.device, nbytes: int) -> torch.Tensor:
    """Uninitialised bytes on ``device``.

    Raises:
        MemoryBudgetError: somebody took the memory since the budget was checked.
    """
    try:
        return torch.empty(nbytes, dtype=torch.uint8, device=device)
    except torch.cuda.OutOfMemoryError as exc:
        left = device_headroom(device, None)
        hint = (
            "Another process took memory while this load ran, or what is left is in pieces: free some, and load again"
        )
        raise MemoryBudgetError(nbytes, left.available_bytes, left.limit, hint) from exc


class CudaPlacer:
    """Tensors on one CUDA device: large ones with a storage of their own, small ones sharing arenas.

    Must be made on the thread that will use the tensors: their memory belongs to its current stream.
    """

    def __init__(
        self,
        plan: Plan,
        allocate: Callable[[int], torch.Tensor],
        device: torch.device,
        *,
        slot_bytes: int,
        cast: torch.dtype | None,
    ) -> None:
        self._plan = plan
        self._device = device
        self._slot_bytes = slot_bytes
        self._cast = cast
        self._home = torch.cuda.current_stream(device)
        self._allocate = allocate
        self._arenas = Arenas(plan.placements, self._allocate_at_home)
        self._lock = threading.Lock()
        self._placed: list[torch.cuda.Event] = []
        self.staging_bytes = 0

    def _allocate_at_home(self, arena: int) -> tuple[torch.Tensor, torch.cuda.Event]:
        """The arena, and the event after which its memory is free of what the caller's stream did with it before."""
        with torch.cuda.device(self._device), torch.cuda.stream(self._home):
            memory = self._allocate(arena)
            return memory, self._home.record_event()

    def open_lane(self) -> CudaLane:
        """See :class:`~fastload._place.placer.Placer`."""
        torch.cuda.set_device(self._device)  # else this thread would make a context on device 0
        lane = CudaLane(self._plan, self._arenas, self._device, self._slot_bytes)
        with self._lock:
            self._placed.append(lane.placed)
            self.staging_bytes += lane.staging_bytes
        return lane

    def catch_up(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        current = torch.cuda.current_stream(self._device)
        with self._lock:
            for placed in self._placed:
                current.wait_event(placed)

    def take(self, number: int) -> torch.Tensor:
        """See :class:`~fastload._place.placer.Placer`."""
        info, arena, offset = self._plan.placements[number]
        if arena == NOWHERE:
            tensor = view_bytes(torch.empty(0, dtype=torch.uint8, device=self._device), info)
        else:
            memory, _ = self._arenas.get(arena)
            self._arenas.release(arena)
            current = torch.cuda.current_stream(self._device)
            if current != self._home:
                memory.record_stream(current)
            tensor = view_bytes(memory[offset : offset + info.nbytes], info)
        return tensor.to(self._cast) if self._cast is not None and is_castable(info) else tensor

    def finish(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        for placed in self._placed:
            placed.synchronize()


class _Slot:
    """A pinned host buffer and the event after which it may be filled again."""

    def __init__(self, nbytes: int) -> None:
        self.memory = map_staging(nbytes)
        self.tensor = torch.frombuffer(self.memory, dtype=torch.uint8)
        self.free = torch.cuda.Event(blocking=True)  # else a thread that waits would take a core from those that read
        self.is_pinned = self._pin()

    def _pin(self) -> bool:
        """Pin in place: faster than cudaHostAlloc, and in huge pages. Refused: copies from it are slower, not wrong."""
        runtime = torch.cuda.cudart()
        code = runtime.cudaHostRegister(self.tensor.data_ptr(), self.tensor.numel(), _REGISTER_PORTABLE)
        return int(code) == 0

    def unpin(self) -> None:
        """No copy out of it may be under way."""
        if self.is_pinned:
            torch.cuda.cudart().cudaHostUnregister(self.tensor.data_ptr())


class CudaLane:
    """One thread's way onto the device."""

    def __init__(
        self, plan: Plan, arenas: Arenas[tuple[torch.Tensor, torch.cuda.Event]], device: torch.device, slot_bytes: int
    ) -> None:
        self._plan = plan
        self._arenas = arenas
        self._stream = torch.cuda.Stream(device)
        self._staging = allocate_on(device, slot_bytes)
        self._staging.record_stream(self._stream)
        self._stream.wait_stream(torch.cuda.current_stream(device))
        self.placed = torch.cuda.Event()
        self.placed.record(self._stream)
        self._slots: list[_Slot] = []
        try:
            self._add_slots(slot_bytes)
        except BaseException:
            self._unpin()
            raise
        self.staging_bytes = slot_bytes * len(self._slots)
        self._turn = 0
        self._extent: Extent | None = None

    def _add_slots(self, slot_bytes: int) -> None:
        """Two that are pinned; where that is refused, which is for want of memory, one."""
        for _ in range(_SLOTS_PER_LANE):
            slot = _Slot(slot_bytes)
            if not slot.is_pinned:
                self._forget_error()
            if slot.is_pinned or not self._slots:
                self._slots.append(slot)
            if not slot.is_pinned:
                return

    def _forget_error(self) -> None:
        """Clear the thread's last CUDA error, which torch reports and clears after any copy on a device.

        The copy itself is carried out, so it must be in order with those to come.
        """
        with contextlib.suppress(RuntimeError), torch.cuda.stream(self._stream):
            self._staging[:1].copy_(self._staging[1:2])

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        """See :class:`~fastload._place.placer.Lane`."""
        self._turn = (self._turn + 1) % len(self._slots)
        slot = self._slots[self._turn]
        slot.free.synchronize()
        self._extent = extent
        return [slot.memory[: round_up(extent.length, alignment_bytes)]]

    def place(self) -> None:
        """See :class:`~fastload._place.placer.Lane`."""
        extent, slot = self._extent, self._slots[self._turn]
        if extent is None:
            return
        with torch.cuda.stream(self._stream):
            self._staging[: extent.length].copy_(slot.tensor[: extent.length], non_blocking=True)
            slot.free.record(self._stream)
            self._scatter(extent)
            self.placed.record(self._stream)

    def _scatter(self, extent: Extent) -> None:
        at = 0
        for arena, offset, length in self._plan.cut(extent):
            if arena != NOWHERE:
                memory, usable = self._arenas.get(arena)
                self._stream.wait_event(usable)
                memory[offset : offset + length].copy_(self._staging[at : at + length], non_blocking=True)
            at += length

    def close(self) -> None:
        """See :class:`~fastload._place.placer.Lane`.

        Waits for the whole stream: after an error, copies may be queued that no event was recorded behind.
        """
        try:
            self._stream.synchronize()
        finally:
            self._unpin()
            self._staging = self._staging.new_empty(0)

    def _unpin(self) -> None:
        while self._slots:
            self._slots.pop().unpin()
