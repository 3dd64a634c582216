"""Private memory, and what is left of the address space where the kernel grants no more of it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import resource

from fastload._system_file import read_lines
from fastload.errors import MemoryBudgetError

_HINT = "Raise {}, or load fewer tensors (tensors=)"
_LIMITS = (
    (resource.RLIMIT_AS, "VmSize", "its address space", "ulimit -v"),
    (resource.RLIMIT_DATA, "VmData", "its private memory", "ulimit -d"),
)
"""What bounds it, what /proc/self/status counts against that, and how both are called."""


HUGE_PAGE_BYTES = 2 << 20  # 2 MiB


def map_private(nbytes: int, *, slack_bytes: int = 0, extra_flags: int = 0) -> mmap.mmap:
    """Zeroed private memory, of whole pages: ``nbytes``, and the slack in which to place them.

    Raises:
        MemoryBudgetError: the kernel has no address space or commit charge left.
    """
    try:
        return mmap.mmap(-1, nbytes + slack_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | extra_flags)
    except OSError as exc:
        raise address_space_refusal(nbytes + slack_bytes) from exc


def map_for_huge_pages(nbytes: int, *, extra_flags: int = 0) -> memoryview:
    """As :func:`map_private`; at a huge-page border where it is as large as one, else at a page border."""
    if nbytes < HUGE_PAGE_BYTES:
        return memoryview(map_private(nbytes, extra_flags=extra_flags))
    whole = memoryview(map_private(nbytes, slack_bytes=HUGE_PAGE_BYTES, extra_flags=extra_flags))
    begin = -address_of(whole) % HUGE_PAGE_BYTES
    return whole[begin : begin + nbytes]


def map_anonymous(nbytes: int) -> memoryview:
    """As :func:`map_for_huge_pages`, and asked of the kernel in huge pages where it is as large as one.

    Raises:
        MemoryBudgetError: the kernel has no address space or commit charge left.
    """
    memory = map_for_huge_pages(nbytes)
    if nbytes >= HUGE_PAGE_BYTES:
        with contextlib.suppress(OSError):  # a kernel without transparent huge pages: slower, not wrong
            mapping_of(memory).madvise(mmap.MADV_HUGEPAGE)
    return memory


def mapping_of(buffer: memoryview) -> mmap.mmap:
    """The mapping that ``buffer`` is a view of."""
    mapping = buffer.obj
    if not isinstance(mapping, mmap.mmap):
        raise TypeError("not a view of a mapping")
    return mapping


def address_of(buffer: memoryview) -> int:
    """The address of a writable buffer's first byte."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def address_space_refusal(needed_bytes: int) -> MemoryBudgetError:
    """Our error for a mapping of ``needed_bytes`` that was refused by ENOMEM."""
    left = [
        (max(0, limit - _used_bytes(field)), f"the limit of {name}, {limit:,} bytes,", command)
        for number, field, name, command in _LIMITS
        if (limit := resource.getrlimit(number)[0]) != resource.RLIM_INFINITY
    ]
    if not left:
        hint = _HINT.format("ulimit -v or vm.overcommit_memory")
        return MemoryBudgetError(needed_bytes, 0, "what the kernel still grants this process", hint)
    left_bytes, what, command = min(left)
    return MemoryBudgetError(needed_bytes, left_bytes, what, _HINT.format(command))


def _used_bytes(field: str) -> int:
    lines = (line for line in read_lines("/proc/self/status") if line.startswith(f"{field}:"))
    return next((int(line.split()[1]) << 10 for line in lines), 0)
