"""Private memory, and what is left of the address space where the kernel grants no more of it."""

from __future__ import annotations

import mmap
import os
import resource

from fastload.errors import MemoryBudgetError

_HINT = "Raise ulimit -v or vm.overcommit_memory, or load fewer tensors (tensors=)"


def map_private(nbytes: int, *, slack_bytes: int = 0) -> mmap.mmap:
    """Zeroed private memory, of whole pages: ``nbytes``, and the slack in which to place them.

    Raises:
        MemoryBudgetError: the kernel has no address space or commit charge left.
    """
    try:
        return mmap.mmap(-1, nbytes + slack_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as exc:
        raise address_space_refusal(nbytes) from exc


def address_space_refusal(needed_bytes: int) -> MemoryBudgetError:
    """Our error for a mapping of ``needed_bytes`` that was refused by ENOMEM."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return MemoryBudgetError(needed_bytes, 0, "what the kernel still grants this process", _HINT)
    left = max(0, limit - _mapped_bytes())
    return MemoryBudgetError(needed_bytes, left, f"the limit of its address space, {limit:,} bytes,", _HINT)


def _mapped_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGESIZE")
