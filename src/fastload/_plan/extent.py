"""Extents: what one read fetches. Whole 4 MiB blocks of one shard, because a block is what a digest covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Extent(NamedTuple):
    """The bytes ``[offset, offset + length)`` of a shard.

    ``offset`` is a multiple of the block; the end is one too, or the end of the file.
    """

    shard: int
    offset: int
    length: int

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.offset + self.length


def build_extents(
    shard: int, wanted: Iterable[tuple[int, int]], *, file_bytes: int, extent_bytes: int
) -> Iterator[Extent]:
    """Extents of at most ``extent_bytes`` that cover the ``wanted`` half-open byte ranges, in file order.

    Args:
        shard: its number in the checkpoint.
        wanted: ranges sorted by begin; empty ones are skipped, adjacent ones coalesce.
        file_bytes: where the last block ends.
        extent_bytes: a multiple of the block.
    """
    for begin, end in _coalesce(wanted):
        stop = min(end * BLOCK_BYTES, file_bytes)
        for offset in range(begin * BLOCK_BYTES, stop, extent_bytes):
            yield Extent(shard, offset, min(extent_bytes, stop - offset))


def _coalesce(wanted: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs of block numbers, half-open, that hold the wanted bytes."""
    run_begin = run_end = 0
    for begin, end in wanted:
        if begin == end:
            continue
        first, last = begin // BLOCK_BYTES, -(-end // BLOCK_BYTES)
        if first > run_end:
            if run_end > run_begin:
                yield run_begin, run_end
            run_begin = first
        run_end = max(run_end, last)
    if run_end > run_begin:
        yield run_begin, run_end
