"""Placing on the CPU where O_DIRECT writes to the arenas themselves: nothing is copied but the edges of a shard.

The kernel asks that a direct read is aligned, in the file and in memory. So an arena has its tensors as far behind the
border of a page as the file has them (``LayoutRules.read_alignment``), and a read of whole pages of the file goes to
whole pages of the arena. To copy instead takes as long as the read, where few CPUs serve a fast disk (docs/adr/0026).
"""

from __future__ import annotations

import mmap
from functools import partial
from typing import TYPE_CHECKING

from fastload._address_space import address_of
from fastload._place.host import HostLane, HostPlacer
from fastload._place.memory import map_withheld, share_with_children
from fastload._plan.layout import NOWHERE, round_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan
    from fastload._trace import Trace


class InPlacePlacer(HostPlacer):
    """As :class:`~fastload._place.host.HostPlacer`, for a caller who gets no tensor before all have been placed.

    Until then a child that is forked meanwhile must not share pages that a disk writes to.
    """

    def __init__(self, plan: Plan, *, slot_bytes: int) -> None:
        self._withheld: list[memoryview] = []
        # Not by a method: who is known by their own arenas stays, with all memory, until the collector comes.
        super().__init__(plan, partial(_map, plan, self._withheld), slot_bytes=slot_bytes, cast=None)

    def open_lane(self, trace: Trace | None = None) -> HostLane:
        """See :class:`~fastload._place.placer.Placer`."""
        return InPlaceLane(self._plan, self._arenas, self._map_slot())

    def finish(self) -> None:
        """All has been read: whoever is forked from now on may use the tensors."""
        while self._withheld:
            share_with_children(self._withheld.pop())


def _map(plan: Plan, withheld: list[memoryview], arena: int) -> memoryview:
    memory = map_withheld(round_up(plan.arena_bytes[arena], mmap.PAGESIZE))
    withheld.append(memory)
    return memory


class InPlaceLane(HostLane):
    """One thread's way into the arenas, and through its slot where an extent is not all of one piece."""

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        """See :class:`~fastload._place.placer.Lane`."""
        target = self._find_target(extent, alignment_bytes) if alignment_bytes > 1 else None
        if target is None:
            return super().buffers_for(extent, alignment_bytes)
        self._staged = None
        return [target]

    def _find_target(self, extent: Extent, alignment_bytes: int) -> memoryview | None:
        """Where all of ``extent`` goes, with what is read behind the end of the file; None: not to one such place."""
        piece = next(self._plan.cut(extent))
        if piece.arena == NOWHERE or piece.length < extent.length:
            return None
        memory = self._arenas.get(piece.arena)
        end = piece.offset + round_up(extent.length, alignment_bytes)
        is_last = piece.offset + extent.length == self._plan.arena_bytes[piece.arena]
        has_room = end == piece.offset + extent.length or (is_last and end <= len(memory))
        is_aligned = (address_of(memory) + piece.offset) % alignment_bytes == 0
        return memory[piece.offset : end] if has_room and is_aligned else None
