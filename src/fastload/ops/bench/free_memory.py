"""Makes sure that the memory a load is about to take is there.

A virtual machine may give pages that have been free for two seconds back to its host (free page reporting), and getting
one again costs ten times what filling it does. Then the pause before a measurement decides, not the loader. So right
before each one as much memory as it can need is taken, touched and set free: what the load gets is free, and at hand.
"""

from __future__ import annotations

import mmap

_MADV_POPULATE_WRITE = 23
_SPARE_BYTES = 1 << 30  # 1 GiB


def make_free_memory(nbytes: int) -> int:
    """Take, touch and free ``nbytes``, or less where that would push out the page cache; return how many."""
    nbytes = min(nbytes, _read_free_bytes() - _SPARE_BYTES)
    if nbytes > 0:
        with mmap.mmap(-1, nbytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(mmap.MADV_HUGEPAGE)
            memory.madvise(_MADV_POPULATE_WRITE)
    return max(0, nbytes)


def _read_free_bytes() -> int:
    with open("/proc/meminfo", encoding="utf-8") as meminfo:
        fields = dict(line.split(":", 1) for line in meminfo)
    return int(fields["MemFree"].split()[0]) * 1024
