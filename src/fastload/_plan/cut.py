"""The part of a tensor that a rank keeps, where a model is sharded over ranks.

Rows (dimension 0) are contiguous in the file: what is not kept of them is not read. Of all other dimensions the tensor
is read as a whole, and cut when all of it is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._plan.layout import round_up

if TYPE_CHECKING:
    from fastload._format.header import TensorInfo


@dataclass(frozen=True, slots=True)
class Cut:
    """The elements ``[begin, end)`` of each dimension, as torch counts them."""

    bounds: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """What is left."""
        return tuple(end - begin for begin, end in self.bounds)

    @property
    def rows(self) -> tuple[int, int]:
        """Of dimension 0."""
        return self.bounds[0]

    def within_rows(self, shape: tuple[int, ...]) -> tuple[slice, ...] | None:
        """How to cut, further, a tensor of ``shape`` of which only the rows were read; None: not at all."""
        if all((begin, end) == (0, size) for (begin, end), size in zip(self.bounds[1:], shape[1:], strict=True)):
            return None
        return (slice(None), *(slice(begin, end) for begin, end in self.bounds[1:]))


def cut_evenly(size: int, parts: int, number: int) -> tuple[int, int]:
    """Which of ``size`` elements are part ``number`` of ``parts``, as torch.chunk and DTensor count."""
    step = round_up(size, parts) // parts
    return min(size, step * number), min(size, step * (number + 1))


def narrow(info: TensorInfo, rows: tuple[int, int]) -> TensorInfo:
    """The tensor that these rows of ``info`` are; a row must be whole bytes."""
    begin, end = rows
    row_bytes = math.prod(info.shape[1:]) * info.dtype.bits // 8
    at = info.begin + begin * row_bytes
    return info._replace(shape=(end - begin, *info.shape[1:]), begin=at, end=at + (end - begin) * row_bytes)


def has_whole_rows(info: TensorInfo) -> bool:
    """True if the rows of ``info`` begin and end at borders of bytes."""
    return bool(info.shape) and math.prod(info.shape[1:]) * info.dtype.bits % 8 == 0
