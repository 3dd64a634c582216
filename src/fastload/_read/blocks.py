"""The blocks in what was read: digests cover blocks, and buffers end wherever tensors do."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from fastload._address_space import map_private
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastload._read.reader import Reader


def split_blocks(offset: int, buffers: Sequence[memoryview], file_bytes: int) -> Iterator[tuple[int, list[memoryview]]]:
    """The whole blocks in ``buffers``, each by its number and the pieces that it lies in.

    Args:
        offset: where in the file the buffers' bytes begin; a block does there.
        buffers: the bytes, one after another; they may reach past the end of the file.
        file_bytes: where the file ends, and with it the last block.
    """
    pieces: list[memoryview] = []
    gathered = 0
    end_bytes = min(file_bytes, offset + sum(map(len, buffers)))
    for buffer in buffers:
        at = 0
        while at < len(buffer) and offset < end_bytes:
            wanted = min(BLOCK_BYTES, end_bytes - offset) - gathered
            piece = buffer[at : at + wanted]
            pieces.append(piece)
            gathered += len(piece)
            at += len(piece)
            if len(piece) == wanted:
                yield offset // BLOCK_BYTES, pieces
                offset += gathered
                pieces, gathered = [], 0


def runs_of(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Half-open runs of adjacent ``numbers``, which rise."""
    begin = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield numbers[begin], numbers[at - 1] + 1
            begin = at


def cut(buffers: Sequence[memoryview], begin: int, end: int) -> list[memoryview]:
    """The bytes of ``buffers``, one after another, from ``begin`` on and before ``end``."""
    found: list[memoryview] = []
    at = 0
    for buffer in buffers:
        piece = buffer[max(0, begin - at) : max(0, end - at)]
        if piece:
            found.append(piece)
        at += len(buffer)
    return found


def joined(pieces: Sequence[memoryview]) -> memoryview:
    """One block in one piece: itself where it is, else a copy."""
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def read_block(reader: Reader, offset: int, length: int) -> memoryview:
    """``length`` bytes from ``offset`` on, into memory that suits ``reader``."""
    room_bytes = -(-max(1, length) // mmap.PAGESIZE) * mmap.PAGESIZE
    room = memoryview(map_private(room_bytes))
    reader.read_into(offset, [room[: -(-length // reader.alignment_bytes) * reader.alignment_bytes]])
    return room[:length]
