"""Placing on a CUDA device: pinned host slot → device staging slot → scattered to the arenas.

The staging slot holds the extent as it lies in the file, so alignment costs nothing: the host-to-device copy is one
large one, and the device-to-device copies that bring each piece to its aligned place run at memory bandwidth. Each lane
has its own stream, and an event per slot says when that slot may be filled again; nothing synchronises the device.

Arenas belong to the *home* stream, the caller's. torch's allocator gives freed memory of a stream to the next one who
asks on that stream, without waiting. So a lane waits for what the home stream did with an arena's memory before, and
whoever takes a tensor waits for the lanes first; if that is another stream than home, the allocator is told.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from fastload._place.cuda_lane import CudaLane
from fastload._place.cuda_memory import Arena, Place, room_on
from fastload._place.lane_stream import LaneStream
from fastload._place.numa import go_near
from fastload._place.placer import Arenas
from fastload._place.slots import Slots
from fastload._place.stream_queue import StreamEvent, in_context
from fastload._place.tensors import is_castable, view_bytes
from fastload._plan.layout import NOWHERE
from fastload._read.cuda_driver import load_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._place.lane_stream import Digesting
    from fastload._place.pinned_ring import PinnedRing
    from fastload._plan.plan import Plan
    from fastload._trace import Trace


_TOGETHER = 64
"""Arenas that are made at once: fewer events to wait for, and yet the first ones soon."""


@dataclass(frozen=True, slots=True)
class Supply:
    """Where the memory of arenas comes from."""

    allocate: Callable[[int], torch.Tensor]
    """Called with an arena's number."""
    on_host: frozenset[int] = frozenset()
    """Those for which it gives host memory: they are too large for the device to hold beside what it is for."""


class _Home:
    """The caller's stream, on which memory is allocated. It must not know the placer: a circle would keep it all."""

    def __init__(self, device: torch.device, supply: Supply) -> None:
        self.stream = torch.cuda.current_stream(device)
        self._device = device
        self._supply = supply

    def make(self, arena: int) -> Arena:
        """The memory of one."""
        return self.make_all([arena])[0]

    def make_all(self, arenas: Sequence[int]) -> list[Arena]:
        """That of several, usable with one event."""
        with torch.cuda.device(self._device), torch.cuda.stream(self.stream):
            memories = [self._supply.allocate(arena) for arena in arenas]
            usable = StreamEvent()
            usable.set_on(self.stream)
        on_host = self._supply.on_host
        return [
            Arena(memory, Place(memory.data_ptr(), arena in on_host), usable)
            for arena, memory in zip(arenas, memories, strict=True)
        ]


class CudaPlacer:
    """Tensors on one CUDA device: large ones with a storage of their own, small ones sharing arenas.

    Must be made on the thread that will use the tensors: their memory belongs to its current stream.
    """

    def __init__(
        self,
        plan: Plan,
        supply: Supply,
        device: torch.device,
        *,
        slot_bytes: int,
        cast: torch.dtype | None,
        digesting: Digesting | None = None,
    ) -> None:
        self._plan = plan
        self._device = device
        self._slots = Slots(slot_bytes)
        self._cast = cast
        self._digesting = digesting
        self._on_host = supply.on_host
        self._home = _Home(device, supply)
        self._context = load_driver().find_context(device.index)
        self._follower = self._home.stream
        self._arenas = Arenas(plan.placements, self._home.make)
        self._lock = threading.Lock()
        self._lanes: list[CudaLane] = []
        self._rows: Counter[str] = Counter()
        """Lanes by thread: one may have several, which a trace shows apart."""

    @property
    def staging_bytes(self) -> int:
        """See :class:`~fastload._place.placer.Placer`."""
        with self._lock:
            return sum(lane.staging_bytes for lane in self._lanes)

    def use(self, ring: PinnedRing, *, at_first: int, per_lane: int) -> None:
        """Before any lane is opened: let them take slots that are ready from ``ring``; see ``Slots``."""
        self._slots = replace(self._slots, ring=ring, at_first=at_first, per_lane=per_lane)

    def make_ahead(self) -> Iterator[None]:
        """See :class:`~fastload._place.placer.Placer`."""
        for first in range(0, len(self._plan.arena_bytes), _TOGETHER):
            arenas = range(first, min(first + _TOGETHER, len(self._plan.arena_bytes)))
            self._arenas.make(arenas, self._home.make_all)
            yield

    def make_pages(self) -> Iterator[None]:
        """What a device copies into has pages."""
        return iter(())

    def open_lane(self, trace: Trace | None = None) -> CudaLane:
        """See :class:`~fastload._place.placer.Placer`."""
        torch.cuda.set_device(self._device)  # else this thread would make a context on device 0
        load_driver().enter(self._device.index)
        go_near(self._device)
        way = LaneStream(self._plan, self._arenas, self._device, self._slots.nbytes, self._digesting)
        lane = CudaLane(way, self._slots)
        with self._lock:
            self._lanes.append(lane)
            thread = threading.current_thread().name
            self._rows[thread] += 1
        if trace is not None:
            again = f" ({self._rows[thread]})" if self._rows[thread] > 1 else ""
            way.tell(trace, f"stream{again} of {thread}")
        return lane

    def catch_up(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        self._follower = torch.cuda.current_stream(self._device.index)
        with in_context(self._context):
            for placed in self._set_placed():
                placed.hold_back(self._follower)

    def _wait_placed(self) -> None:
        """Until the device has done all that lanes have queued so far."""
        with in_context(self._context):
            for placed in self._set_placed():
                placed.wait()

    def _set_placed(self) -> list[StreamEvent]:
        """Events behind all that lanes have queued so far."""
        with self._lock:
            for lane in self._lanes:
                lane.placed.set_on(lane.stream)
            return [lane.placed for lane in self._lanes]

    def take(self, number: int) -> torch.Tensor:
        """See :class:`~fastload._place.placer.Placer`."""
        info, arena, offset = self._plan.placements[number]
        if arena == NOWHERE:
            tensor = view_bytes(torch.empty(0, dtype=torch.uint8, device=self._device), info)
        else:
            memory = self._arenas.take(arena).memory
            self._await(memory, arena)
            tensor = view_bytes(memory[offset : offset + info.nbytes], info)
        if self._cast is None or not is_castable(info):
            return tensor
        with room_on(self._device, tensor.numel() * self._cast.itemsize):
            return tensor.to(self._cast)

    def _await(self, memory: torch.Tensor, arena: int) -> None:
        """Whoever reads ``memory`` from now on finds it filled: the caller's stream, or for host memory the caller."""
        if arena in self._on_host:
            self._wait_placed()
            return
        current = torch.cuda.current_stream(self._device.index)
        if current != self._follower:
            self.catch_up()  # the caller has gone over to another stream since
        if current != self._home.stream:
            memory.record_stream(current)

    def finish(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        self._wait_placed()
        if self._slots.ring is not None:
            self._slots.ring.close()
