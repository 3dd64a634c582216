"""Readers over ``preadv``: ``buffered`` through the page cache, ``direct`` past it (O_DIRECT).

``preadv`` releases the GIL, so threads are depth. io_uring was rejected: container runtimes block it by default, and at
extents of megabytes it brings nothing (docs/adr/0002).
"""

from __future__ import annotations

import errno
import os
import resource
from collections import deque
from typing import TYPE_CHECKING

from fastload._read.background import BackgroundRead
from fastload._read.file import check_unchanged, identify, noting_arrived, open_regular, read_fully, translate
from fastload._read.kernel import direct_alignment
from fastload._read.watch import Watch, check_descriptor
from fastload.errors import IntegrityError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.reader import Attempt, File

_PIECE_BYTES = 2 << 20  # 2 MiB
"""Of a read in the background, at most: extents may be larger, so that there is little to be done for each byte, and
yet be there soon."""
_LEFT_DESCRIPTORS = 64
"""For what else this process has to open."""
_REFUSED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})


class BufferedReader:
    """Reads through the page cache, straight into wherever the buffers are."""

    name = "buffered"
    alignment_bytes = 1

    def __init__(self, file: File) -> None:
        self._file = file
        self._descriptor = open_regular(file.path)
        self._watch = Watch(file, self._descriptor)
        self._duplicates: deque[int] = deque()
        self._has_too_few = False

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        try:
            read_fully(
                self._descriptor, offset, _clip(buffers, self._file.identity.size - offset), path=self._file.path
            )
            self._watch.check(offset)
        except OSError as exc:
            raise translate(self._file.path, exc) from exc

    def begin(self, offset: int, buffer: memoryview) -> Attempt | None:
        """See :func:`~fastload._read.reader.begin_read`."""
        wanted = buffer[: max(0, self._file.identity.size - offset)]
        descriptors = self._take_duplicates(-(-len(wanted) // _PIECE_BYTES))
        read = BackgroundRead.begin(descriptors, offset, wanted) if descriptors else None
        if read is None:
            self.give_back(descriptors)
            return None
        return _Attempt(self, read, descriptors, offset)

    def _take_duplicates(self, count: int) -> list[int]:
        """So many, which nobody else uses; none where not all are to be had."""
        taken: list[int] = []
        if self._has_too_few:
            return taken
        try:
            while len(taken) < count:
                taken.append(self._duplicates.popleft() if self._duplicates else _duplicate(self._descriptor))
        except OSError:  # whoever reads in the ordinary way needs none
            self._has_too_few = True
            _close_all(taken)
            return []
        return taken

    def give_back(self, descriptors: Sequence[int]) -> None:
        """A read is over: they can serve the next one."""
        self._duplicates.extend(descriptors)
        if self._has_too_few:
            _close_all(self._duplicates)

    def check(self, offset: int) -> None:
        """Raise ``IntegrityError`` unless the file is still what it was."""
        self._watch.check(offset)

    def check_path(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        check_path(self._file)

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        os.close(self._descriptor)
        _close_all(self._duplicates)


def _duplicate(descriptor: int) -> int:
    """Raise ``OSError`` where few are left for others of this process: the kernel gives the lowest that is free."""
    duplicate = os.dup(descriptor)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and duplicate >= limit - _LEFT_DESCRIPTORS:
        os.close(duplicate)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return duplicate


def _close_all(descriptors: deque[int] | list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


class _Attempt:
    """See :class:`~fastload._read.reader.Attempt`."""

    __slots__ = ("_descriptors", "_offset", "_read", "_reader")

    def __init__(self, reader: BufferedReader, read: BackgroundRead, descriptors: list[int], offset: int) -> None:
        self._reader = reader
        self._read = read
        self._descriptors = descriptors
        self._offset = offset

    def finish(self) -> bool:
        is_whole = self._read.wait()
        self._reader.give_back(self._descriptors)
        if is_whole:
            self._reader.check(self._offset)
        return is_whole

    def abandon(self) -> None:
        self._read.abandon()
        self._reader.give_back(self._descriptors)


class DirectReader:
    """Reads past the page cache: less CPU, and the cache keeps what others have in it."""

    name = "direct"

    def __init__(self, file: File) -> None:
        self._file = file
        try:
            self._descriptor = open_regular(file.path, os.O_DIRECT)
        except OSError as exc:
            raise self._unsupported("opened") from exc
        self.alignment_bytes = direct_alignment(self._descriptor)
        if not self.alignment_bytes:
            os.close(self._descriptor)
            raise self._unsupported("read")

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        (buffer,) = buffers
        wanted = min(len(buffer), self._file.identity.size - offset)
        try:
            self._fill(offset, buffer, wanted)
            check_descriptor(self._file, self._descriptor, offset)
        except OSError as exc:
            if exc.errno in _REFUSED:
                raise self._unsupported("read") from exc
            raise translate(self._file.path, exc) from exc

    def _fill(self, offset: int, buffer: memoryview, wanted: int) -> None:
        done = 0
        while done < wanted:
            with noting_arrived(done):
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            if not count:
                found, expected = "the end of the file", f"{wanted - done:,} more bytes"
                raise IntegrityError(self._file.path, offset + done, found, expected, "The file shrank: load again")
            done += count
            if done < wanted:
                done = self._round_down(offset, done, count)

    def _round_down(self, offset: int, done: int, count: int) -> int:
        """A short read may stop anywhere, the next one must begin aligned: the rest of that sector comes twice.

        A read that fills not even one sector would come again and again. Either the file ends there by now, or this
        file system cuts direct reads shorter than it says they may be.
        """
        if count < self.alignment_bytes:
            check_descriptor(self._file, self._descriptor, offset + done)
            raise self._unsupported("read")
        return done // self.alignment_bytes * self.alignment_bytes

    def _unsupported(self, done: str) -> UnsupportedError:
        what = f"{self._file.path!r} cannot be {done} with O_DIRECT on this file system"
        return UnsupportedError(what, 'Use reader="auto" or reader="buffered"')

    def check_path(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        check_path(self._file)

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        os.close(self._descriptor)


def check_path(file: File) -> None:
    """Raise ``IntegrityError`` if the path leads to another file by now: its neighbours may be of another revision."""
    try:
        now = identify(os.stat(file.path))
    except FileNotFoundError:
        return  # removed, not replaced: what was read is whole
    except OSError as exc:
        raise translate(file.path, exc) from exc
    check_unchanged(file.path, file.identity.size, file.identity, now)


def _clip(buffers: Sequence[memoryview], length: int) -> list[memoryview]:
    """``buffers`` without what lies past ``length`` bytes."""
    clipped: list[memoryview] = []
    for buffer in buffers:
        clipped.append(buffer[: max(0, length)])
        length -= len(buffer)
    return clipped
