"""Reading a little of what a tier offers, into memory of one's own: an index, a config, the beginning of a shard."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from fastload.errors import FormatError

if TYPE_CHECKING:
    from fastload._store.offer import Offer, OfferedFile


def read_whole(offer: Offer, file: OfferedFile, max_bytes: int) -> bytes:
    """All of one file, which must not be larger than ``max_bytes``.

    Raises:
        FormatError: it is larger.
    """
    if file.size > max_bytes:
        raise FormatError(file.path, f"{file.size:,} bytes", f"at most {max_bytes:,}")
    return read_range(offer, file, 0, file.size)


def read_range(offer: Offer, file: OfferedFile, offset: int, length: int) -> bytes:
    """``length`` bytes of one file, from ``offset`` on."""
    buffer = bytearray(length)
    with closing(offer.open(file)) as reader:
        reader.read_into(offset, [memoryview(buffer)])
    return bytes(buffer)
