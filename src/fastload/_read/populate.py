"""``mmap``: the buffers are a mapping of the file itself, and reading means bringing its pages in.

MADV_POPULATE_READ (Linux 5.14) fills page tables in one call and answers an error where touching the page would end the
process with SIGBUS. What happens to a mapped file after the load is its owner's business.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING

from fastload._address_space import address_of, address_space_refusal, map_for_huge_pages
from fastload._read.file import check_unchanged, identify, open_regular, translate
from fastload._read.kernel import is_cached
from fastload._read.pread import check_path
from fastload._read.watch import check_descriptor
from fastload.errors import IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._read.reader import File

_MADV_POPULATE_READ = 22
_MAP_NORESERVE = 0x4000  # not in Python's mmap before 3.13; without it a file above RAM + swap cannot be mapped
_MAP_FIXED = 0x10  # nor this
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64,
)  # fmt: skip
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def map_file(file: File) -> memoryview:
    """The whole file as private memory: writes to it stay in this process.

    Raises:
        IntegrityError: it is no longer as long as its header said.
        MemoryBudgetError: there is no address space left for it.
        StoreError: it cannot be mapped.
    """
    descriptor = open_regular(file.path)
    try:
        check_unchanged(file.path, 0, file.identity, identify(os.fstat(descriptor)))
        memory = _map(descriptor, file.identity.size)
        if os.lseek(descriptor, 0, os.SEEK_END) < file.identity.size:  # between the two lines before
            found, expected = "a file that became shorter", f"{file.identity.size:,} bytes"
            raise IntegrityError(file.path, 0, found, expected, "Load again")
    except OSError as exc:
        if exc.errno == errno.ENOMEM:
            raise address_space_refusal(file.identity.size) from exc
        raise translate(file.path, exc) from exc
    finally:
        os.close(descriptor)
    return memory


def _map(descriptor: int, nbytes: int) -> memoryview:
    """Memory of Python's that is the file's from the first touch on.

    Python's own mapping of a file keeps a duplicate of its descriptor (before 3.13 always), for as long as a tensor of
    it lives: a thousand shards were too many for what a process may have open. At the border of a huge page, since the
    page cache has huge ones too, and elsewhere they are mapped by the 64 KiB: to touch all took twice as long.
    """
    memory = map_for_huge_pages(nbytes, extra_flags=_MAP_NORESERVE)
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE | _MAP_FIXED
    address = address_of(memory)
    if _libc.mmap(address, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0) != address:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return memory


def detach(buffer: memoryview) -> None:
    """Put memory of nobody's in the place of the pages that ``buffer``, a part of such a mapping, lies in.

    To be filled with what storage cannot give: not even a write to such a page gets by without reading it, and that is
    a SIGBUS. What else was in the pages is gone.

    Raises:
        MemoryBudgetError: there is no memory for it.
    """
    address = address_of(buffer)
    shift = address % mmap.PAGESIZE
    nbytes = -(-(len(buffer) + shift) // mmap.PAGESIZE) * mmap.PAGESIZE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
    if _libc.mmap(address - shift, nbytes, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != address - shift:
        raise address_space_refusal(nbytes)


class PopulatingReader:
    """Brings pages of a mapping in. The buffers must be views of :func:`map_file`'s memory."""

    name = "mmap"
    alignment_bytes = 1

    def __init__(self, file: File) -> None:
        self._file = file
        self._descriptor = open_regular(file.path)

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        at = offset
        for buffer in filter(len, buffers):
            # Pages that are there are mapped when they are touched: by the hundred in one fault, where populating
            # walks them one by one, which took longer than loading.
            if not is_cached(self._descriptor, at, len(buffer)):
                self._populate(at, buffer)
            at += len(buffer)
        check_descriptor(self._file, self._descriptor, offset)

    def _populate(self, offset: int, buffer: memoryview) -> None:
        address = address_of(buffer)
        shift = address % mmap.PAGESIZE
        if not _libc.madvise(address - shift, len(buffer) + shift, _MADV_POPULATE_READ):
            return
        code = ctypes.get_errno()
        if code == errno.EINVAL:
            return  # a kernel before 5.14: pages come in when they are touched
        if code == errno.EFAULT:  # touching such a page would be SIGBUS: the file ends before it, or storage fails
            check_descriptor(self._file, self._descriptor, offset)
            code = errno.EIO
        error = OSError(code, os.strerror(code))
        raise translate(self._file.path, error) from error

    def check_path(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        check_path(self._file)

    def close(self) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        os.close(self._descriptor)
