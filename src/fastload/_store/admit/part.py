"""The file that the bytes of a staged file lie in until it has its name.

Written through the page cache, each block is on its way to the disk at once. Written past it (O_DIRECT), it is there,
has cost half of the CPU's time, and has pushed nothing out of the cache: for bytes that nobody reads back.
"""

from __future__ import annotations

import contextlib
import errno
import os

from fastload._read.kernel import LOCAL, direct_alignment, file_system
from fastload._store.filesystem import reserve, start_writing_back

_BLOCK_UNIT_BYTES = 512
"""What st_blocks counts in, on any file system."""


class Part:
    """Open for writing; whoever made it closes its :attr:`descriptors`."""

    def __init__(self, descriptor: int, *, past_cache: bool) -> None:
        """``past_cache``: write past the page cache, where the file system can and is a local one.

        A network's file system collects what is written in the page cache, and sends it in parallel.
        """
        self.descriptor = descriptor
        self._direct: int | None = None
        self._alignment_bytes = direct_alignment(self.descriptor)
        if past_cache and self._alignment_bytes and file_system(self.descriptor) in LOCAL:
            with contextlib.suppress(OSError):  # then this one cannot, and the page cache takes it
                # Not by its path, where something else may lie by now.
                self._direct = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All that are open."""
        return (self.descriptor,) if self._direct is None else (self.descriptor, self._direct)

    @property
    def taken_bytes(self) -> int:
        """The room that it has on the disk."""
        return os.fstat(self.descriptor).st_blocks * _BLOCK_UNIT_BYTES

    @property
    def is_past_cache(self) -> bool:
        """True if what is written is not in the page cache, and reading it back means reading the disk."""
        return self._direct is not None

    def reserve(self, nbytes: int) -> None:
        """Take the room; see :func:`~fastload._store.filesystem.reserve`."""
        reserve(self.descriptor, nbytes)

    def write(self, offset: int, block: memoryview) -> None:
        """Write ``block`` at ``offset``.

        Raises:
            OSError: the disk cannot take it.
        """
        begin = done = self._write_past_cache(offset, block)
        while done < len(block):
            done += os.pwrite(self.descriptor, block[done:], offset + done)
        if begin < len(block):
            # Of this block alone: to look for what else is dirty in the whole file takes longer than copying it there.
            start_writing_back(self.descriptor, offset + begin, len(block) - begin)

    def _write_past_cache(self, offset: int, block: memoryview) -> int:
        """How much of ``block`` could be written so, from its beginning: all but what ends within a sector."""
        direct, unit = self._direct, self._alignment_bytes
        if direct is None:
            return 0
        done, length = 0, len(block) // unit * unit
        while done < length and done % unit == 0:
            try:
                done += os.pwrite(direct, block[done:length], offset + done)
            except OSError as exc:
                if exc.errno != errno.EINVAL:
                    raise
                break  # not from there, or not here: the page cache takes anything
        return done // unit * unit

    def sync(self, size: int) -> None:
        """Make it ``size`` bytes long, and return when they are on the disk.

        Raises:
            OSError: the disk could not take them. (A sync that failed is never tried again: the kernel has let go of
            what it could not write.)
        """
        os.ftruncate(self.descriptor, size)
        os.fsync(self.descriptor)
