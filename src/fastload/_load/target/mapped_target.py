"""Loading by way of the page cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._budget import Room, host_headroom
from fastload._load.target.host_target import HOST_HINT
from fastload._place.mapped import MappedPlacer
from fastload._plan.layout import Layout, lay_out_mapped
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import torch

    from fastload._format.checkpoint import Checkpoint, Shard
    from fastload._format.header import TensorInfo
    from fastload._load.target.keeping import Keeping
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._place.device_digests import DeviceDigests
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan

_MAPPED_EXTENT_BYTES = 64 << 20  # 64 MiB: nothing is copied, so that an extent costs the same at any size


class MappedTarget:
    """Mappings of the shards themselves: their pages are the page cache's until somebody writes to them."""

    reads_ahead = False
    slots_per_lane = 1
    extent_bytes = _MAPPED_EXTENT_BYTES
    window_bytes: int | None = None
    digests: DeviceDigests | None = None

    def __init__(self, checkpoint: Checkpoint, keeping: Keeping, *, copies_all: bool = False) -> None:
        self._checkpoint = checkpoint
        self._keeping = keeping
        self._copies_all = copies_all

    def for_readers(self, names: Collection[str]) -> Target:
        """See :class:`~fastload._load.target.target.Target`."""
        return self

    def reading_less_ahead(self) -> None:
        """See :class:`~fastload._load.target.target.Target`: it has no window."""

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.target.Target`."""
        return lay_out_mapped(infos, file_bytes, first_arena=first_arena)

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """See :class:`~fastload._load.target.target.Target`.

        Only what is copied takes memory that the kernel cannot take back.
        """
        copied_bytes = self._keeping.copied_bytes(plan, copies_all=self._copies_all)
        needed_bytes = self._keeping.made_bytes(plan) + copied_bytes
        return [Room(needed_bytes, host_headroom(), HOST_HINT)] if needed_bytes else []

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`~fastload._load.target.target.Target`."""
        shard_of = {segments[0].arena: shard for shard, segments in enumerate(plan.segments) if segments}

        def file_of(arena: int) -> Shard:
            return self._checkpoint.shards[shard_of[arena]]

        return MappedPlacer(plan, file_of, cast=self._keeping.cast, copies_all=self._copies_all)


def choose_mapped(device: torch.device, keeping: Keeping, checkpoint: Checkpoint, *, copies_all: bool) -> MappedTarget:
    """The page cache, as memory of ``device``.

    Raises:
        UnsupportedError: it is no device's.
    """
    if device.type != "cpu":
        raise UnsupportedError('reader="mmap" serves device="cpu" only', 'Use reader="auto"')
    return MappedTarget(checkpoint, keeping, copies_all=copies_all)
