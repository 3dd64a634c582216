"""What a kind of memory to load into tells: the layout, the room that tensors need, and who places them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fastload._budget import Room
    from fastload._format.header import TensorInfo
    from fastload._load.target.staging import Staging
    from fastload._place.device_digests import DeviceDigests
    from fastload._place.placer import Placer
    from fastload._plan.layout import Layout
    from fastload._plan.plan import Plan

ARENA_BYTES = 64 << 20  # 64 MiB


class Target(Protocol):
    """A kind of memory to load into."""

    slots_per_lane: int
    extent_bytes: int
    """The largest extent that suits it."""
    window_bytes: int | None
    """How far reading may run ahead of taking; None: as far as it likes, since all is kept."""
    digests: DeviceDigests | None
    """Taken where the bytes arrive; None: on the CPU."""

    @property
    def reads_ahead(self) -> bool:
        """True where one thread may have others read; its lanes have many slots then."""

    def for_readers(self, names: Collection[str]) -> Target:
        """The same memory, laid out for who reads into it."""

    def reading_less_ahead(self) -> Target | None:
        """The same memory with a smaller window; None where there is nothing to give up."""

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """Places for the wanted tensors of one shard."""

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """What ``plan`` takes of each kind of memory; nothing has been allocated."""

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """Who brings the plan's bytes into place."""
