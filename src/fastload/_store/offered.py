"""Reading a little of what a tier offers, into memory of one's own: an index, a config, the beginning of a shard."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from fastload._format.checkpoint import FileIdentity
from fastload.errors import FormatError

if TYPE_CHECKING:
    from fastload._read.file import ProveWhole
    from fastload._store.offer import Offer, OfferedFile


def read_whole(offer: Offer, file: OfferedFile, max_bytes: int) -> bytes:
    """All of one file, which must not be larger than ``max_bytes``.

    Raises:
        FormatError: it is larger.
    """
    if file.size > max_bytes:
        raise FormatError(file.path, f"{file.size:,} bytes", f"at most {max_bytes:,}")
    return read_range(offer, file, 0, file.size)


def read_proven(offer: Offer, file: OfferedFile, max_bytes: int, prove: ProveWhole) -> bytes:
    """As :func:`read_whole`, and ``prove`` sees it before it is believed."""
    raw = bytearray(read_whole(offer, file, max_bytes))
    prove(file.path, identity_of(file), memoryview(raw))
    return bytes(raw)


def identity_of(file: OfferedFile) -> FileIdentity:
    """Of what no file system has: it has a size, and nothing else that could change."""
    return FileIdentity(dev=0, ino=0, size=file.size, mtime_ns=0, ctime_ns=0)


def read_range(offer: Offer, file: OfferedFile, offset: int, length: int) -> bytes:
    """``length`` bytes of one file, from ``offset`` on."""
    buffer = bytearray(length)
    with closing(offer.open(file)) as reader:
        reader.read_into(offset, [memoryview(buffer)])
    return bytes(buffer)
