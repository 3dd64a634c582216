"""Layout: which tensor lies where in memory.

Memory comes in *arenas* (one allocation each). Tensors that follow one another in the file keep following one another
in their arena, so that a read can go straight into place; such a stretch is a *segment*. Where that would leave a
tensor misaligned for its dtype, a new segment begins at an aligned place: alignment costs padding, never a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._format.header import TensorInfo

NOWHERE = -1
"""The arena of bytes that nobody wants: the header, and neighbours in the same block."""


class Segment(NamedTuple):
    """The bytes ``[begin, end)`` of a shard land in ``arena`` from ``offset`` on."""

    begin: int
    end: int
    arena: int
    offset: int


class Placement(NamedTuple):
    """One tensor's place: ``info.nbytes`` bytes in ``arena`` from ``offset`` on. Empty tensors are ``NOWHERE``."""

    info: TensorInfo
    arena: int
    offset: int

    @property
    def is_aligned(self) -> bool:
        """True if its dtype may lie there: arenas begin at the border of a page."""
        return self.offset % self.info.dtype.alignment_bytes == 0


@dataclass(frozen=True, slots=True)
class LayoutRules:
    """How a target wants its memory. All sizes are in bytes; alignments are powers of two."""

    start_alignment: int
    """A segment begins at a multiple of this."""
    tensor_alignment: int
    """Every tensor begins at a multiple of this and of its dtype's alignment."""
    arena_bytes: int | None
    """No arena that is shared is larger; None: one arena for the shard."""
    own_bytes: int | None
    """A tensor at least this large is alone in its arena; None: never."""
    read_alignment: int = 1
    """An arena's first tensor lies as far behind a multiple of this as in the file, unless that misaligns it: reads
    that must be aligned so can go straight into place."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Places for the tensors of one shard. Arenas are numbered from ``first_arena`` on."""

    arena_bytes: tuple[int, ...]
    segments: tuple[Segment, ...]
    placements: tuple[Placement, ...]


class _Builder:
    """Walks the tensors in file order and keeps the arena and the segment that are open.

    The open segment is four numbers until it ends: a checkpoint may have a hundred thousand tensors, and few segments.
    """

    def __init__(self, rules: LayoutRules, first_arena: int) -> None:
        self._rules = rules
        self._arenas: list[int] = []
        self._arena = first_arena - 1
        """The number of the last one."""
        self._segments: list[Segment] = []
        self._placements: list[Placement] = []
        self._arena_is_open = False
        self._begin = self._end = self._offset = 0
        """Of the open segment, which lies in the last arena; there is none where it has no bytes."""

    def add(self, info: TensorInfo) -> None:
        begin, end = info.begin, info.end
        nbytes = end - begin
        if not nbytes:
            self._placements.append(Placement(info, NOWHERE, 0))
            return
        rules = self._rules
        used = self._arenas[-1] if self._arenas else 0
        alignment = max(rules.tensor_alignment, info.dtype.alignment_bytes)
        # Right behind the tensor before it if the file has them so and that is aligned; else at the next start.
        follows = begin == self._end and used % alignment == 0
        offset = used if follows else round_up(used, max(alignment, rules.start_alignment))
        alone = rules.own_bytes is not None and nbytes >= rules.own_bytes
        if alone or not self._arena_is_open or (rules.arena_bytes is not None and offset + nbytes > rules.arena_bytes):
            self._end_segment()
            self._arenas.append(0)
            self._arena += 1
            offset = begin % rules.read_alignment if begin % alignment == 0 else 0
        elif not follows:
            self._end_segment()
        if self._end == self._begin:
            self._begin, self._offset = begin, offset
        self._end = end
        self._arenas[-1] = offset + nbytes
        self._arena_is_open = not alone
        self._placements.append(Placement(info, self._arena, offset))

    def build(self) -> Layout:
        self._end_segment()
        return Layout(tuple(self._arenas), tuple(self._segments), tuple(self._placements))

    def _end_segment(self) -> None:
        if self._end > self._begin:
            self._segments.append(Segment(self._begin, self._end, self._arena, self._offset))
        self._begin = self._end


def lay_out(tensors: Sequence[TensorInfo], rules: LayoutRules, *, first_arena: int) -> Layout:
    """Places for ``tensors`` (of one shard, in file order) by ``rules``."""
    builder = _Builder(rules, first_arena)
    for info in tensors:
        builder.add(info)
    return builder.build()


def lay_out_mapped(tensors: Sequence[TensorInfo], file_bytes: int, *, first_arena: int) -> Layout:
    """Places in a mapping of the file itself: arena offset = file offset."""
    placements = tuple(Placement(info, first_arena if info.nbytes else NOWHERE, info.begin) for info in tensors)
    return Layout((file_bytes,), (Segment(0, file_bytes, first_arena, 0),), placements)


def lay_out_apart(tensors: Sequence[TensorInfo], *, first_arena: int) -> Layout:
    """Each tensor alone at the start of its own arena: for memory that exists already."""
    placements = tuple(
        Placement(info, first_arena + number if info.nbytes else NOWHERE, 0) for number, info in enumerate(tensors)
    )
    segments = tuple(Segment(p.info.begin, p.info.end, p.arena, 0) for p in placements if p.info.nbytes)
    return Layout(tuple(info.nbytes for info in tensors), segments, placements)


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-value // multiple) * multiple
