"""Brings files out of the page cache and into it, and proves by cachestat(2) that it worked. Linux 6.5 or later."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SYS_CACHESTAT = 451  # the same number on every architecture
_BUFFER_BYTES = 1 << 20  # 1 MiB
_PASSES = 3  # a page may be gone again before the first one ends
_COLD, _CACHED = 0.001, 0.999
_libc = ctypes.CDLL(None, use_errno=True)


class PageCacheError(RuntimeError):
    """The state that a table is about could not be brought about."""


def measure_residency(paths: Sequence[str]) -> float:
    """How much of the files is in the page cache, 0 … 1."""
    pages = cached = 0
    for path in paths:
        span, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            pages += -(-os.fstat(descriptor).st_size // os.sysconf("SC_PAGESIZE"))
            if _libc.syscall(ctypes.c_long(_SYS_CACHESTAT), descriptor, span, counts, 0):
                raise PageCacheError(f"cachestat: {os.strerror(ctypes.get_errno())}")
        finally:
            os.close(descriptor)
        cached += counts[0]
    return cached / pages if pages else 1.0


def evict(paths: Sequence[str]) -> str:
    """Drop the files' pages, and only theirs if the kernel does it; say how it was done."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # dirty pages are not dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    if measure_residency(paths) <= _COLD:
        return "posix_fadvise(DONTNEED), proved by cachestat"
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as switch:
            switch.write("3")
    except OSError as exc:
        raise PageCacheError(f"the files stay in the page cache and drop_caches is not permitted: {exc}") from exc
    residency = measure_residency(paths)
    if residency > _COLD:
        raise PageCacheError(f"{residency:.1%} of the files stay in the page cache")
    return "drop_caches, proved by cachestat"


def fill(paths: Sequence[str]) -> str:
    """Read the files, so that they are in the page cache; say how it was done.

    Also where they are there already: a host may have unmapped the guest's idle pages, and the next toucher would pay.
    """
    buffer = bytearray(_BUFFER_BYTES)
    for _ in range(_PASSES):
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
        residency = measure_residency(paths)
        if residency >= _CACHED:
            return "read(2) from first to last byte right before, proved by cachestat"
    raise PageCacheError(f"only {residency:.1%} of the files stay in the page cache: more memory is needed")
