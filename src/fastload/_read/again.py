"""Reading a block once more, past the page cache: a page that went bad in memory is whole on the disk."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING

from fastload._read.blocks import read_block
from fastload._read.counted import CountedReader
from fastload._read.file import advise
from fastload._read.pread import BufferedReader, DirectReader
from fastload.errors import FastloadError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._read.reader import File


def read_again(
    file: File, offset: int, length: int, count: Callable[[int], object] = lambda _: None
) -> memoryview | None:
    """These bytes as the storage has them; None where they cannot be read again. ``count`` is told how many came.

    By O_DIRECT; where that is refused, the file's pages are dropped first, which the kernel may or may not do.
    """
    try:
        try:
            with closing(CountedReader(DirectReader(file), file, count)) as reader:
                return read_block(reader, offset, length)
        except UnsupportedError:
            drop_pages(file.path, offset, length)
            with closing(CountedReader(BufferedReader(file), file, count)) as reader:
                return read_block(reader, offset, length)
    except FastloadError:
        return None


def drop_pages(path: str, offset: int, length: int) -> None:
    """Have the kernel forget what it keeps of these bytes, where it will: who reads them next gets the storage's."""
    advise(path, offset, length, os.POSIX_FADV_DONTNEED)
