"""From what each rank wants to what each rank does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._plan.division import choose_pools, grow_tree, own_by_files, own_by_stripes
from fastload._plan.ranges import unite_spreads
from fastload._plan.share import Division

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._plan.division import Member
    from fastload._plan.plan import Plan
    from fastload._plan.ranges import Spread

_STRIPE_BYTES = 64 << 20  # 64 MiB: storage that reads ahead has something to read ahead
_STRIPES_PER_RANK = 8
_SHARDS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class RankWish:
    """What one rank tells the others before the plan is made."""

    spread: Spread
    """What it keeps."""
    extent_bytes: int
    """The largest extent that it has room for."""
    window_bytes: int | None
    needs_whole_files: bool
    """True if it can prove some files only by a digest of the whole."""


@dataclass(frozen=True, slots=True)
class Common:
    """What the ranks of one pool have in common: each of them reckons the same."""

    pool: Sequence[Member]
    wishes: Mapping[int, RankWish]
    """Of the pool's ranks."""

    @property
    def extent_bytes(self) -> int:
        """The largest extent that all have room for."""
        return min(wish.extent_bytes for wish in self.wishes.values())

    @property
    def spread(self) -> Spread:
        """What at least one of them keeps."""
        return unite_spreads([wish.spread for wish in self.wishes.values()])

    @property
    def by_files(self) -> bool:
        """True if a file must be read by one rank."""
        return any(self.wishes[member.rank].needs_whole_files for member in self.pool if member.reads)

    @property
    def readers(self) -> list[int]:
        """The ranks whose machine has the model."""
        return [member.rank for member in self.pool if member.reads]

    def order(self, plan: Plan) -> Plan:
        """The plan with its extents in the order in which they are read."""
        is_windowed = any(wish.window_bytes is not None for wish in self.wishes.values())
        # A digest of a whole file is one core's work.
        return plan.interleaved(_SHARDS_AT_ONCE * len(self.readers)) if self.by_files and not is_windowed else plan

    def divide(self, plan: Plan) -> Division:
        """Who reads what of ``plan``."""
        readers = self.readers
        if self.by_files:
            owners = own_by_files(plan.extents, readers)
        else:
            owners = own_by_stripes(plan.extents, readers, stripe_bytes=self._stripe_bytes(plan))
        trees = {owner: grow_tree(self.pool, owner) for owner in readers}
        wants = {rank: wish.spread for rank, wish in self.wishes.items()}
        return Division(plan.extents, owners, trees, wants)

    def _stripe_bytes(self, plan: Plan) -> int:
        """So long that storage reads ahead, so short that all read at once, within the windows too."""
        limits = [wish.window_bytes for wish in self.wishes.values() if wish.window_bytes is not None]
        shares = (2 * len(self.readers), _STRIPES_PER_RANK * len(self.readers))
        return min([_STRIPE_BYTES, plan.read_bytes // shares[1], *(limit // shares[0] for limit in limits)])


def find_pool(members: Sequence[Member], rank: int) -> Sequence[Member]:
    """Those that ``rank`` shares the reading with, itself included."""
    return next(pool for pool in choose_pools(members) if any(member.rank == rank for member in pool))
