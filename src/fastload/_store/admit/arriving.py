"""The blocks of one extent, each as soon as it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._read.reader import GradualReader

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from fastload._read.filedigests import Hashing
    from fastload._read.reader import Reader


def read_each(
    reader: Reader, offset: int, blocks: Sequence[memoryview], room: memoryview
) -> Generator[int, None, None]:
    """Fill ``blocks``, the beginning of ``room``, and give the number of each that is there.

    What a slow line has brought is staged before the rest of the extent comes: an extent may take minutes, and who is
    killed meanwhile would fetch all of it again. A reader that must be aligned may ask for a little more room.
    """
    if isinstance(reader, GradualReader):
        yield from reader.read_each(offset, blocks)
        return
    nbytes = sum(map(len, blocks))
    reader.read_into(offset, [room[: -(-nbytes // reader.alignment_bytes) * reader.alignment_bytes]])
    yield from range(len(blocks))


def measured(numbers: Iterator[int], measuring: Hashing) -> Iterator[int]:
    """``numbers``, each of which is waited for in ``measuring()``."""
    while True:
        with measuring():
            number = next(numbers, None)
        if number is None:
            return
        yield number
