"""One plan for the whole checkpoint."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import zip_longest
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from fastload._plan.extent import Extent, build_extents
from fastload._plan.layout import NOWHERE, Layout, Placement, Segment
from fastload._plan.ranges import unite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._format.checkpoint import Checkpoint
    from fastload._format.header import TensorInfo
    from fastload._plan.ranges import Ranges, Spread

    LayOut = Callable[[Sequence[TensorInfo], int, int], Layout]
    """Called with a shard's wanted tensors, the file's size, and the number of its first arena."""


class Piece(NamedTuple):
    """``length`` bytes, in the order of the file, and where they go; ``NOWHERE`` if nobody wants them."""

    arena: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What to read and where it goes. Placements are in file order, shard after shard; extents too, or interleaved."""

    extents: tuple[Extent, ...]
    segments: tuple[tuple[Segment, ...], ...]
    """Per shard, sorted by begin."""
    arena_bytes: tuple[int, ...]
    placements: tuple[Placement, ...]
    ready_after: tuple[int, ...]
    """Per placement, the last extent that holds a byte of it; -1 for an empty tensor."""
    spread: Spread = ()
    """What is wanted by anybody: all else in the extents comes along with it."""

    @property
    def wanted_bytes(self) -> int:
        """Bytes of the tensors, as stored."""
        return sum(placement.info.nbytes for placement in self.placements)

    @property
    def read_bytes(self) -> int:
        """Bytes of the extents."""
        return sum(extent.length for extent in self.extents)

    def interleaved(self, shards_at_once: int) -> Plan:
        """The same, with the extents of so many shards in turns: for work that is serial within a shard.

        Within a shard extents stay in order.
        """
        by_shard: dict[int, list[int]] = {}
        for number, extent in enumerate(self.extents):
            by_shard.setdefault(extent.shard, []).append(number)
        columns = list(by_shard.values())
        order: list[int] = []
        for first in range(0, len(columns), shards_at_once):
            rows = zip_longest(*columns[first : first + shards_at_once])
            order += [number for row in rows for number in row if number is not None]
        place_of = {number: place for place, number in enumerate(order)}
        return replace(
            self,
            extents=tuple(self.extents[number] for number in order),
            ready_after=tuple(place_of.get(number, number) for number in self.ready_after),
        )

    def cut(self, extent: Extent) -> Iterator[Piece]:
        """The pieces that ``extent`` consists of; their lengths add up to its own."""
        segments = self.segments[extent.shard]
        number = bisect_right(segments, extent.offset, key=attrgetter("end"))
        at = extent.offset
        while at < extent.end:
            segment = segments[number] if number < len(segments) else None
            if segment is None or segment.begin >= extent.end:
                yield Piece(NOWHERE, 0, extent.end - at)
                return
            if segment.begin > at:
                yield Piece(NOWHERE, 0, segment.begin - at)
                at = segment.begin
            end = min(segment.end, extent.end)
            yield Piece(segment.arena, segment.offset + at - segment.begin, end - at)
            at, number = end, number + 1


def build_plan(
    checkpoint: Checkpoint,
    wanted: Callable[[str], bool],
    lay_out: LayOut,
    *,
    extent_bytes: int,
    narrow: Callable[[TensorInfo], TensorInfo] = lambda info: info,
    read: Spread | None = None,
) -> Plan:
    """The plan that brings the tensors whose name is ``wanted`` to where ``lay_out`` puts them.

    Args:
        checkpoint: what there is.
        wanted: tells by a tensor's name.
        lay_out: gives places.
        extent_bytes: the largest extent, a multiple of the block.
        narrow: gives the part of a wanted tensor that there must be room for.
        read: what is read, for this rank or for others; None: these parts.
    """
    per_shard: list[list[TensorInfo]] = [[] for _ in checkpoint.shards]
    for shard, info in checkpoint.tensors():
        if wanted(info.name):
            per_shard[shard].append(narrow(info))
    extents: list[Extent] = []
    ready_after: list[int] = []
    arenas: list[int] = []
    layouts: list[Layout] = []
    spread: list[Ranges] = []
    for number, infos in enumerate(per_shard):
        file_bytes = checkpoint.shards[number].header.file_bytes
        layout = lay_out(infos, file_bytes, len(arenas)) if infos else Layout((), (), ())
        first = len(extents)
        spread.append(unite((info.begin, info.end) for info in infos) if read is None else read[number])
        extents += build_extents(number, spread[-1], file_bytes=file_bytes, extent_bytes=extent_bytes)
        ready_after += _find_last_extents(infos, extents[first:], first)
        arenas += layout.arena_bytes
        layouts.append(layout)
    return Plan(
        tuple(extents),
        tuple(layout.segments for layout in layouts),
        tuple(arenas),
        tuple(placement for layout in layouts for placement in layout.placements),
        tuple(ready_after),
        tuple(spread),
    )


def _find_last_extents(infos: Sequence[TensorInfo], extents: Sequence[Extent], first: int) -> Iterator[int]:
    """For each tensor the number of the extent with its last byte; both are sorted, so one walk finds all."""
    at = 0
    for info in infos:
        if not info.nbytes:
            yield -1
            continue
        while extents[at].end < info.end:
            at += 1
        yield first + at
