"""The part of a tensor that a rank keeps, where a model is sharded over ranks.

Rows (dimension 0) are contiguous in the file: what is not kept of them is not read. Of all other dimensions the tensor
is read as a whole, and cut when all of it is there. Rows that do not follow one another have room for those between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fastload._plan.layout import round_up
from fastload._plan.ranges import count, pick, unite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._format.header import TensorInfo
    from fastload._plan.ranges import Range, Ranges


@dataclass(frozen=True, slots=True)
class Cut:
    """The elements of each dimension that are kept, as torch counts them."""

    kept: tuple[Ranges, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """What is left."""
        return tuple(map(count, self.kept))

    @property
    def rows(self) -> Range:
        """From the first to the last that is kept of dimension 0."""
        return (self.kept[0][0][0], self.kept[0][-1][1]) if self.kept[0] else (0, 0)

    def within_rows(self, shape: tuple[int, ...]) -> tuple[Ranges, ...] | None:
        """What to keep, further, of a tensor of ``shape`` of which only the rows were read; None: all of it."""
        first = self.rows[0]
        within = (tuple((begin - first, end - first) for begin, end in self.kept[0]), *self.kept[1:])
        return None if tuple(map(count, within)) == shape else within


class Split(NamedTuple):
    """One dimension, dealt to ranks in a row."""

    dim: int
    parts: int
    number: int
    """Which part is meant."""
    turns: int = 1
    """Into so many pieces it is cut first, and each of these is dealt out: ``_StridedShard(split_factor=turns)``."""


def deal(shape: Sequence[int], splits: Sequence[Split]) -> Cut:
    """What is left of a tensor of ``shape`` where one of ``splits`` after another takes its part."""
    kept = [unite([(0, size)]) for size in shape]
    for split in splits:
        kept[split.dim] = pick(kept[split.dim], cut_in_turns(count(kept[split.dim]), split))
    return Cut(tuple(kept))


def innermost_first(splits: Sequence[Split]) -> Sequence[Split]:
    """What ``splits`` stand for where FSDP has dealt out what other ways of parallelism had dealt out before.

    It writes that down as a split in turns that comes before the others, with as many turns as these have parts. Both
    are the same where sizes divide evenly.
    """
    for place, split in enumerate(splits):
        others = (other.parts for other in splits[place + 1 :] if other.dim == split.dim)
        if split.turns > 1 and split.turns != math.prod(others):
            return splits
    plain = [split for split in splits if split.turns == 1]
    return [*plain, *(split._replace(turns=1) for split in reversed(splits) if split.turns > 1)]


def cut_in_turns(size: int, split: Split) -> Iterator[Range]:
    """Which of ``size`` elements ``split`` takes, as DTensor counts."""
    for turn in range(min(split.turns, size)):
        begin, end = cut_evenly(size, split.turns, turn)
        first, last = cut_evenly(end - begin, split.parts, split.number)
        yield begin + first, begin + last


def cut_evenly(size: int, parts: int, number: int) -> Range:
    """Which of ``size`` elements are part ``number`` of ``parts``, as torch.chunk counts."""
    step = round_up(size, parts) // parts
    return min(size, step * number), min(size, step * (number + 1))


def narrow(info: TensorInfo, rows: Range) -> TensorInfo:
    """The tensor that these rows of ``info`` are; a row must be whole bytes."""
    begin, end = rows
    row_bytes = math.prod(info.shape[1:]) * info.dtype.bits // 8
    at = info.begin + begin * row_bytes
    return info._replace(shape=(end - begin, *info.shape[1:]), begin=at, end=at + (end - begin) * row_bytes)


def has_whole_rows(info: TensorInfo) -> bool:
    """True if the rows of ``info`` begin and end at borders of bytes."""
    return bool(info.shape) and math.prod(info.shape[1:]) * info.dtype.bits % 8 == 0
