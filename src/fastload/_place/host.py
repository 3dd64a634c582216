"""Placing on the CPU: reads go straight into the arenas; what must be aligned for O_DIRECT goes through a slot."""

from __future__ import annotations

import mmap
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fastload._address_space import map_anonymous
from fastload._place.memory import copy_bytes, free_pages_with, make_pages, map_staging
from fastload._place.placer import Arenas
from fastload._place.tensors import is_castable, tensor_over
from fastload._plan.layout import NOWHERE, round_up
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._plan.extent import Extent
    from fastload._plan.layout import Placement
    from fastload._plan.plan import Plan
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._trace import Trace

GIVES_PAGES_BACK_BYTES = 1 << 20  # 1 MiB
_PAGES_BYTES = 8 << 20  # 8 MiB
"""Of pages that are made at once."""


class HostPlacer:
    """Tensors in host memory, each with a storage of its own.

    ``slot_bytes`` is 0 where every byte has its place and nothing is read through a slot, as in a mapped file.
    """

    def __init__(
        self, plan: Plan, allocate: Callable[[int], memoryview], *, slot_bytes: int, cast: torch.dtype | None
    ) -> None:
        self._plan = plan
        self._arenas = Arenas(plan.placements, allocate)
        self._slot_bytes = slot_bytes
        self._cast = cast
        self._lock = threading.Lock()
        self.staging_bytes = 0

    def open_lane(self, trace: Trace | None = None) -> HostLane:
        """See :class:`~fastload._place.placer.Placer`."""
        return HostLane(self._plan, self._arenas, self._map_slot())

    def _map_slot(self) -> memoryview:
        with self._lock:
            self.staging_bytes += self._slot_bytes
        return map_staging(self._slot_bytes) if self._slot_bytes else memoryview(b"")

    def catch_up(self) -> None:
        """Nothing is asynchronous here."""

    def make_ahead(self) -> Iterator[None]:
        """Mapping a shard is no work: its pages come when they are read into."""
        return iter(())

    def make_pages(self) -> Iterator[None]:
        """See :class:`~fastload._place.placer.Placer`."""
        for arena in range(len(self._plan.arena_bytes)):
            memory = self._arenas.find(arena)
            if memory is not None:
                for at in range(0, len(memory), _PAGES_BYTES):
                    if not make_pages(memory[at : at + _PAGES_BYTES]):
                        return
                    yield

    def take(self, number: int) -> torch.Tensor:
        """See :class:`~fastload._place.placer.Placer`."""
        placement = self._plan.placements[number]
        info, arena, offset = placement
        if arena == NOWHERE:
            tensor = tensor_over(memoryview(b""), info)
        else:
            buffer = self._arenas.take(arena)[offset : offset + info.nbytes]
            tensor = tensor_over(self._own(buffer, placement), info)
        if self._cast is not None and is_castable(info):
            return cast_tensor(tensor, self._cast)
        return tensor

    def _own(self, buffer: memoryview, placement: Placement) -> memoryview:
        """``buffer`` made fit to live alone: aligned, its pages returned with it."""
        if not placement.is_aligned:
            aligned = room_for_copy(len(buffer))
            copy_bytes(aligned, buffer)
            return aligned
        arena_bytes = self._plan.arena_bytes[placement.arena]
        is_alone = placement.offset < mmap.PAGESIZE and placement.offset + len(buffer) == arena_bytes
        if GIVES_PAGES_BACK_BYTES <= len(buffer) < arena_bytes and not is_alone:
            free_pages_with(buffer)
        return buffer

    def finish(self) -> None:
        """Nothing is asynchronous here."""


def open_passing(plan: Plan, slot_bytes: int) -> HostPlacer:
    """A placer for bytes of ``plan`` that nobody wants here: they only pass through its lanes' slots."""
    nowhere = replace(plan, segments=((),) * len(plan.segments), arena_bytes=(), placements=(), ready_after=())
    return HostPlacer(nowhere, map_anonymous, slot_bytes=slot_bytes, cast=None)


class HostLane:
    """One thread's way into host memory."""

    takes_digests = False
    has_room = True

    def __init__(self, plan: Plan, arenas: Arenas[memoryview], slot: memoryview) -> None:
        self._plan = plan
        self._arenas = arenas
        self._slot = slot
        self._staged: Extent | None = None

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        """See :class:`~fastload._place.placer.Lane`."""
        if alignment_bytes > 1:
            self._staged = extent
            return [self._slot[: round_up(extent.length, alignment_bytes)]]
        self._staged = None
        return [target or gap for target, gap in self._targets(extent)]

    def device_memory_for(self, extent: Extent, files: CuFiles) -> DeviceMemory:
        """See :class:`~fastload._place.placer.Lane`."""
        raise UnsupportedError("host memory is no device's")

    def place(self, landed: Callable[[], None], check: BlockCheck | None = None) -> None:
        """See :class:`~fastload._place.placer.Lane`."""
        for target, staged in [] if self._staged is None else self._targets(self._staged):
            if target is not None:
                copy_bytes(target, staged)
        landed()

    def settle(self) -> None:
        """Nothing is asynchronous here."""

    def _targets(self, extent: Extent) -> list[tuple[memoryview | None, memoryview]]:
        """Per piece: where it goes (None: nowhere), and its part of the slot."""
        at = 0
        targets: list[tuple[memoryview | None, memoryview]] = []
        for arena, offset, length in self._plan.cut(extent):
            memory = None if arena == NOWHERE else self._arenas.get(arena)[offset : offset + length]
            targets.append((memory, self._slot[at : at + length]))
            at += length
        return targets

    def close(self) -> None:
        """See :class:`~fastload._place.placer.Lane`."""
        self._slot = memoryview(b"")


def room_for_copy(nbytes: int) -> memoryview:
    """Memory for one tensor, in huge pages where that matters."""
    return map_anonymous(nbytes) if nbytes >= GIVES_PAGES_BACK_BYTES else memoryview(bytearray(nbytes))


def cast_tensor(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``tensor.to(dtype)``, but into huge pages where that matters."""
    nbytes = tensor.numel() * dtype.itemsize
    if tensor.dtype == dtype or nbytes < GIVES_PAGES_BACK_BYTES:
        return tensor.to(dtype)

    target = torch.frombuffer(map_anonymous(nbytes), dtype=dtype).view(tensor.shape)
    return target.copy_(tensor)
