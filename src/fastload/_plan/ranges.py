"""Half-open ranges ``[begin, end)``, of a file's bytes mostly: sorted, apart from one another, none empty."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Range = tuple[int, int]
    Ranges = tuple[Range, ...]
    """Of one file."""
    Spread = tuple[Ranges, ...]
    """Of each shard of a checkpoint."""


def unite(ranges: Iterable[Range]) -> Ranges:
    """All bytes of ``ranges``, which may overlap and come in any order."""
    united: list[Range] = []
    open_begin = open_end = 0  # the last range, as long as it grows: a hundred thousand tensors in a row are one
    for begin, end in sorted(ranges):
        if begin == end:
            continue
        if begin > open_end or open_begin == open_end:
            if open_begin < open_end:
                united.append((open_begin, open_end))
            open_begin, open_end = begin, end
        elif end > open_end:
            open_end = end
    return (*united, (open_begin, open_end)) if open_begin < open_end else ()


def unite_spreads(spreads: Sequence[Spread]) -> Spread:
    """What at least one of ``spreads`` has, shard by shard."""
    first, *others = spreads
    if all(other == first for other in others):  # as in a group whose ranks all want everything
        return first
    return tuple(unite(one for ranges in shard for one in ranges) for shard in zip(*spreads, strict=True))


def clip(ranges: Ranges, begin: int, end: int) -> Ranges:
    """The bytes of ``ranges`` that lie in ``[begin, end)``."""
    first = bisect_right(ranges, begin, key=itemgetter(1))
    clipped: list[Range] = []
    for at in range(first, len(ranges)):
        if ranges[at][0] >= end:
            break
        clipped.append((max(begin, ranges[at][0]), min(end, ranges[at][1])))
    return tuple(clipped)


def pick(ranges: Ranges, positions: Iterable[Range]) -> Ranges:
    """Of what ``ranges`` hold, one after another, that at ``positions``."""
    picked: list[Range] = []
    at = 0
    wanted = unite(positions)
    for begin, end in ranges:
        picked += [(begin + first - at, begin + last - at) for first, last in clip(wanted, at, at + end - begin)]
        at += end - begin
    return unite(picked)


def count(ranges: Iterable[Range]) -> int:
    """How many bytes, or whatever they number, they are."""
    return sum(end - begin for begin, end in ranges)
