"""Reading a block once more, past the page cache: a page that went bad in memory is whole on the disk."""

from __future__ import annotations

import contextlib
import os
from contextlib import closing
from typing import TYPE_CHECKING

from fastload._read.blocks import read_block
from fastload._read.file import open_regular, read_fully
from fastload._read.pread import DirectReader
from fastload.errors import FastloadError, UnsupportedError

if TYPE_CHECKING:
    from fastload._read.reader import File


def read_again(file: File, offset: int, length: int) -> memoryview | None:
    """These bytes as the storage has them; None where they cannot be read again.

    By O_DIRECT; where that is refused, the file's pages are dropped first, which the kernel may or may not do.
    """
    try:
        with closing(DirectReader(file)) as reader:
            return read_block(reader, offset, length)
    except UnsupportedError:
        return _read_dropped(file, offset, memoryview(bytearray(length)))
    except FastloadError:
        return None


def drop_pages(path: str, offset: int, length: int) -> None:
    """Have the kernel forget what it keeps of these bytes, where it will: who reads them next gets the storage's."""
    try:
        descriptor = open_regular(path)
    except FastloadError:
        return
    try:
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def _read_dropped(file: File, offset: int, block: memoryview) -> memoryview | None:
    try:
        descriptor = open_regular(file.path)
    except FastloadError:
        return None
    try:
        os.posix_fadvise(descriptor, offset, len(block), os.POSIX_FADV_DONTNEED)
        read_fully(descriptor, offset, [block], path=file.path)
    except (OSError, FastloadError):
        return None
    finally:
        os.close(descriptor)
    return block
