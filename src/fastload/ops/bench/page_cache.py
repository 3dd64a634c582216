"""Brings files out of the page cache and into it, and proves by cachestat(2) that it worked. Linux 6.5 or later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.pace import Pace
from fastload._read.kernel import count_cached_pages

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUFFER_BYTES = 1 << 20  # 1 MiB
_PASSES = 3  # a page may be gone again before the first one ends
_COLD, _CACHED = 0.001, 0.999


class PageCacheError(RuntimeError):
    """The state that a table is about could not be brought about."""


def measure_residency(paths: Sequence[str]) -> float:
    """How much of the files is in the page cache, 0 … 1.

    Raises:
        PageCacheError: the kernel does not tell.
    """
    pages = cached = 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            count = count_cached_pages(descriptor, 0, size)
        finally:
            os.close(descriptor)
        if count is None:
            raise PageCacheError("cachestat is refused: what of these files is in the page cache is not known")
        pages += -(-size // os.sysconf("SC_PAGESIZE"))
        cached += count
    return cached / pages if pages else 1.0


def evict(paths: Sequence[str], *, may_drop_all: bool) -> str:
    """Drop the files' pages, and only theirs if the kernel does it; say how it was done.

    Raises:
        PageCacheError: they stay; where ``may_drop_all``, even when everybody's are dropped.
    """
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # dirty pages are not dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    if measure_residency(paths) <= _COLD:
        return "posix_fadvise(DONTNEED), proved by cachestat"
    if not may_drop_all:
        raise PageCacheError(f"{measure_residency(paths):.1%} of the files stay in the page cache")
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as switch:
            switch.write("3")
    except OSError as exc:
        raise PageCacheError(f"the files stay in the page cache and drop_caches is not permitted: {exc}") from exc
    residency = measure_residency(paths)
    if residency > _COLD:
        raise PageCacheError(f"{residency:.1%} of the files stay in the page cache")
    return "drop_caches, proved by cachestat"


def fill(paths: Sequence[str], max_rate: int | None = None) -> str:
    """Read the files, so that they are in the page cache; say how it was done.

    Also where they are there already: a host may have unmapped the guest's idle pages, and the next toucher would pay.

    Args:
        paths: of the files.
        max_rate: bytes a second of what is not in the page cache yet; None: as fast as it goes.

    Raises:
        PageCacheError: they do not stay there.
    """
    buffer = bytearray(_BUFFER_BYTES)
    pace = Pace(max_rate if measure_residency(paths) < _CACHED else None)
    for _ in range(_PASSES):
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pace.wait(len(buffer))
        residency = measure_residency(paths)
        if residency >= _CACHED:
            return "read(2) from first to last byte right before, proved by cachestat"
    raise PageCacheError(f"only {residency:.1%} of the files stay in the page cache: more memory is needed")
