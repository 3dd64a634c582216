"""Loading into fresh memory of the host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._address_space import map_anonymous
from fastload._budget import Room, host_headroom
from fastload._load.target.target import ARENA_BYTES
from fastload._place.host import GIVES_PAGES_BACK_BYTES, HostPlacer
from fastload._place.in_place import InPlacePlacer
from fastload._plan.layout import Layout, LayoutRules, lay_out
from fastload._read.kernel import DIRECT_ALIGNMENT_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fastload._format.header import TensorInfo
    from fastload._load.target.keeping import Keeping
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._place.device_digests import DeviceDigests
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan

_HOST_EXTENT_BYTES = 8 << 20  # 8 MiB
HOST_HINT = "Give this process more memory, or load fewer tensors (tensors=); those that fit one by one can be streamed"
_WHOLE_SHARDS = LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=None, own_bytes=None)
"""One huge-page mapping per shard: nothing is lost between tensors, and a read goes straight into place."""
_IN_PLACE = replace(_WHOLE_SHARDS, read_alignment=DIRECT_ALIGNMENT_BYTES)
"""The same for reads past the page cache, if the tensors may be aligned no better than in the file."""
_PIECES = LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=ARENA_BYTES, own_bytes=GIVES_PAGES_BACK_BYTES)
"""For tensors that are let go one after another. The pages of a large one go with its mapping: what gives back those of
a shared one runs in Python, where Ctrl-C is lost."""


class HostTarget:
    """Fresh host memory."""

    reads_ahead = False
    slots_per_lane = 1
    extent_bytes = _HOST_EXTENT_BYTES
    digests: DeviceDigests | None = None

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._rules = _WHOLE_SHARDS if keeping.reads_ahead_bytes is None else _PIECES
        self.window_bytes = keeping.reads_ahead_bytes

    def for_readers(self, names: Collection[str]) -> Target:
        """See :class:`~fastload._load.target.target.Target`."""
        return InPlaceTarget(self._keeping) if "direct" in names and self.window_bytes is None else self

    def reading_less_ahead(self) -> Target | None:
        """See :class:`~fastload._load.target.target.Target`."""
        keeping = self._keeping.reading_less_ahead()
        return None if keeping is None else self._keeping_so(keeping)

    def _keeping_so(self, keeping: Keeping) -> HostTarget:
        return HostTarget(keeping)

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.target.Target`."""
        return lay_out(infos, self._rules, first_arena=first_arena)

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """See :class:`~fastload._load.target.target.Target`."""
        return [Room(self._keeping.peak_bytes(plan) + staging.bytes, host_headroom(), HOST_HINT)]

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`~fastload._load.target.target.Target`."""

        def allocate(arena: int) -> memoryview:
            return map_anonymous(plan.arena_bytes[arena])

        return HostPlacer(plan, allocate, slot_bytes=staging.slot_bytes, cast=self._keeping.cast)


class InPlaceTarget(HostTarget):
    """Fresh host memory that direct reads go straight into, for a caller who gets all tensors at once."""

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.target.Target`."""
        return lay_out(infos, _IN_PLACE, first_arena=first_arena)

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`~fastload._load.target.target.Target`."""
        return InPlacePlacer(plan, slot_bytes=staging.slot_bytes)
