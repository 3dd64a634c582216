"""One rank's share of a divided plan: what it reads, what it sends on, what arrives and from whom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from fastload._plan.ranges import clip, unite_spreads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._plan.division import Tree
    from fastload._plan.extent import Extent
    from fastload._plan.ranges import Ranges, Spread


@dataclass(frozen=True, slots=True)
class Division:
    """A plan's extents, divided over the ranks of a pool. The same on all of them."""

    extents: tuple[Extent, ...]
    owners: tuple[int, ...]
    """Per extent, the rank that reads it."""
    trees: Mapping[int, Tree]
    """Per owner."""
    wants: Mapping[int, Spread]
    """Per rank, what it keeps."""


class Parcel(NamedTuple):
    """What is sent of one extent to one rank."""

    rank: int
    ranges: Ranges
    """Of the file; all lie in the extent."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank has to do with each extent; by number, in the order of the plan."""

    extents: tuple[Extent, ...]
    owners: tuple[int, ...]
    """The ranks that read them."""
    own: tuple[int, ...]
    """Those that it reads."""
    kept: frozenset[int]
    """Those of which it keeps something."""
    parcels: Mapping[int, tuple[Parcel, ...]]
    """What it sends on of those that it has."""
    arrivals: Mapping[int, Mapping[int, Ranges]]
    """Per rank that sends, what comes from it."""
    relays: frozenset[int]
    """The ranks, of all, that pass on what others read."""

    @property
    def departures(self) -> dict[int, tuple[int, ...]]:
        """Per rank that is sent to, of which extents something goes there."""
        numbers: dict[int, list[int]] = {}
        for number, parcels in sorted(self.parcels.items()):
            for parcel in parcels:
                numbers.setdefault(parcel.rank, []).append(number)
        return {rank: tuple(sent) for rank, sent in numbers.items()}


def share_of(division: Division, rank: int) -> Share:
    """The share of ``rank``."""
    carried = _Carried(division)
    parcels: dict[int, tuple[Parcel, ...]] = {}
    arrivals: dict[int, dict[int, Ranges]] = {}
    kept: set[int] = set()
    for number, (extent, owner) in enumerate(zip(division.extents, division.owners, strict=True)):
        if _within(division.wants[rank], extent):
            kept.add(number)
        sent = tuple(
            Parcel(child, ranges)
            for child in division.trees[owner].get(rank, ())
            if (ranges := _within(carried.to(owner, child), extent))
        )
        if sent:
            parcels[number] = sent
        if rank != owner and (ranges := _within(carried.to(owner, rank), extent)):
            arrivals.setdefault(carried.parent(owner, rank), {})[number] = ranges
    own = tuple(number for number, owner in enumerate(division.owners) if owner == rank)
    return Share(division.extents, division.owners, own, frozenset(kept), parcels, arrivals, _find_relays(division))


def _find_relays(division: Division) -> frozenset[int]:
    trees = division.trees.items()
    return frozenset(rank for owner, tree in trees for rank, behind in tree.items() if behind and rank != owner)


def _within(spread: Spread, extent: Extent) -> Ranges:
    return clip(spread[extent.shard], extent.offset, extent.end)


class _Carried:
    """What passes through each rank of each tree: what it keeps itself, and what those behind it keep."""

    def __init__(self, division: Division) -> None:
        self._division = division
        self.to = cache(self._to)
        self.parent = cache(self._parent)

    def _to(self, owner: int, rank: int) -> Spread:
        behind: Sequence[Spread] = [self.to(owner, child) for child in self._division.trees[owner][rank]]
        return unite_spreads([self._division.wants[rank], *behind])

    def _parent(self, owner: int, rank: int) -> int:
        tree = self._division.trees[owner]
        return next(parent for parent, children in tree.items() if rank in children)
