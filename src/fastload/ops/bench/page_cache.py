"""Brings files out of the page cache and into it, and proves by cachestat(2) that it worked, where the kernel tells.

It does so from Linux 6.5 on, and to whoever owns a file or may write to it: not to a pod with another user's volume.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.pace import Pace
from fastload._read.kernel import cached_fraction, count_cached_pages

if TYPE_CHECKING:
    from collections.abc import Sequence

_BUFFER_BYTES = 1 << 20  # 1 MiB
_PASSES = 3  # a page may be gone again before the first one ends
_COLD, _CACHED = 0.001, 0.999
_MOSTLY = 0.5
"""Of a few single bytes, which is all that is known where the kernel does not tell."""
UNTOLD = "not proved: cachestat is refused"
"""At the end of what says how a state was brought about."""


class PageCacheError(RuntimeError):
    """The state that a table is about could not be brought about."""


def measure_residency(paths: Sequence[str]) -> float:
    """How much of the files is in the page cache, 0 … 1.

    Raises:
        PageCacheError: the kernel does not tell.
    """
    residency = _find_residency(paths)
    if residency is None:
        raise PageCacheError("cachestat is refused: what of these files is in the page cache is not known")
    return residency


def _find_residency(paths: Sequence[str]) -> float | None:
    """The same; None: the kernel does not tell."""
    pages = cached = 0
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = os.fstat(descriptor).st_size
            count = count_cached_pages(descriptor, 0, size)
        finally:
            os.close(descriptor)
        if count is None:
            return None
        pages += -(-size // os.sysconf("SC_PAGESIZE"))
        cached += count
    return cached / pages if pages else 1.0


def count_missing(paths: Sequence[str]) -> int:
    """The bytes of the files that are not in the page cache; all of them where the kernel does not tell."""
    return round(sum(map(os.path.getsize, paths)) * (1 - (_find_residency(paths) or 0.0)))


def evict(paths: Sequence[str], *, may_drop_all: bool) -> str:
    """Drop the files' pages, and only theirs if the kernel does it; say how it was done.

    Raises:
        PageCacheError: they stay; where ``may_drop_all``, even when everybody's are dropped.
    """
    _drop(paths)
    residency = _find_residency(paths)
    if residency is None:
        return _evict_untold(paths)
    if residency <= _COLD:
        return "posix_fadvise(DONTNEED), proved by cachestat"
    if not may_drop_all:
        raise PageCacheError(f"{residency:.1%} of the files stay in the page cache")
    try:
        with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as switch:
            switch.write("3")
    except OSError as exc:
        raise PageCacheError(f"the files stay in the page cache and drop_caches is not permitted: {exc}") from exc
    residency = _find_residency(paths)
    if residency is None or residency > _COLD:
        raise PageCacheError(f"{residency or 1:.1%} of the files stay in the page cache")
    return "drop_caches, proved by cachestat"


def _drop(paths: Sequence[str]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)  # dirty pages are not dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _evict_untold(paths: Sequence[str]) -> str:
    """Single bytes that come at once tell at least what is still there; those that do not are fetched by asking."""
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            stays = cached_fraction(file.fileno(), os.fstat(file.fileno()).st_size)
        if stays > _MOSTLY:
            raise PageCacheError(f"about {stays:.0%} of {path} stay in the page cache")
    _drop(paths)
    return f"posix_fadvise(DONTNEED), {UNTOLD}"


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
    pace = Pace(max_rate if (_find_residency(paths) or 0.0) < _CACHED else None)
    for _ in range(_PASSES):
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pace.wait(len(buffer))
        residency = _find_residency(paths)
        if residency is None:
            return f"read(2) from first to last byte right before, {UNTOLD}"
        if residency >= _CACHED:
            return "read(2) from first to last byte right before, proved by cachestat"
    raise PageCacheError(f"only {residency:.1%} of the files stay in the page cache: more memory is needed")
