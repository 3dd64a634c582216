"""Host memory for weights: private, in huge pages, given back page by page.

``mmap.mmap(-1, n)`` alone is MAP_SHARED: no huge pages, and shared with forked children. Fresh 4 KiB pages cost four
times as much as 2 MiB ones, which is most of the time of a load from the page cache. Nobody ever closes these mappings:
a view keeps its mapping alive, and the last view's death unmaps it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

from fastload._address_space import address_of, address_space_refusal, map_anonymous, mapping_of

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MADV_WIPEONFORK, _MADV_KEEPONFORK = 18, 19  # Linux 4.14; Python names neither
_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python's mmap does not name it


def map_staging(nbytes: int) -> memoryview:
    """Memory of :func:`~fastload._address_space.map_anonymous`, which a forked child does not get.

    While O_DIRECT or a device writes to a page, a fork may leave this process with a copy of it that misses what is
    written from then on (open(2), NOTES); nobody would notice.

    Raises:
        MemoryBudgetError: the kernel has no address space or commit charge left, or no mapping (vm.max_map_count).
    """
    memory = map_anonymous(nbytes)
    _advise(memory, mmap.MADV_DONTFORK)
    return memory


def map_withheld(nbytes: int) -> memoryview:
    """The same, but a child that is forked has zeros there until :func:`share_with_children`.

    For what :func:`map_staging` is for, where the memory is much and stays: a child that lacks it as a mapping may have
    another one there, which goes when it lets go of what it has inherited.

    Raises:
        MemoryBudgetError: the kernel has no address space or commit charge left, or no mapping (vm.max_map_count).
    """
    memory = map_anonymous(nbytes)
    _advise(memory, _MADV_WIPEONFORK)
    return memory


def share_with_children(memory: memoryview) -> None:
    """Let children that are forked from now on have what is in :func:`map_withheld`'s memory.

    Raises:
        MemoryBudgetError: the kernel has no mapping left (vm.max_map_count).
    """
    _advise(memory, _MADV_KEEPONFORK)


def _advise(memory: memoryview, advice: int) -> None:
    try:
        mapping_of(memory).madvise(advice)
    except OSError as exc:  # this splits a mapping, or makes it unlike its neighbours, and there is a limit to them
        raise address_space_refusal(len(memory)) from exc


def make_pages(memory: memoryview) -> bool:
    """Have the kernel make the pages of ``memory`` now, whoever writes there meanwhile; False: it cannot.

    ``memory`` begins at a page border. The GIL is given up, the lock of the address space is held: no thread can be
    started meanwhile, so ask for a few MiB at a time.
    """
    return not _libc.madvise(address_of(memory), len(memory), _MADV_POPULATE_WRITE)


def copy_bytes(target: memoryview, source: memoryview) -> None:
    """``target[:] = source``, but without holding the GIL."""
    ctypes.memmove(address_of(target), address_of(source), len(source))


def copy_own_memory(target: memoryview, source: memoryview) -> None:
    """``target[:] = source`` by the kernel: what is mapped and cannot be touched is an error, no signal.

    Raises:
        OSError: a page of ``source`` is not there any more.
    """
    descriptor = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        done, begin = 0, address_of(source)
        while done < len(target):
            done += os.preadv(descriptor, [target[done:]], begin + done)
    finally:
        os.close(descriptor)


def free_pages_with(buffer: memoryview) -> None:
    """Give the whole pages under ``buffer``, a view of an anonymous mapping, back to the kernel when the view dies.

    For views of a mapping that lives on because of its other views. A tensor over ``buffer`` keeps it alive, a slice of
    it does not. A dying memoryview lets go of its mapping before it tells weak references, and by then other memory may
    lie at that address: so the finaliser holds the mapping until it is done.
    """
    at = address_of(buffer)
    begin = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (at + len(buffer)) // mmap.PAGESIZE * mmap.PAGESIZE
    if begin < end:
        weakref.finalize(buffer, _give_back, mapping_of(buffer), begin, end - begin).atexit = False


def _give_back(mapping: mmap.mmap, address: int, nbytes: int) -> None:  # noqa: ARG001 - held, so that it is still there
    _libc.madvise(address, nbytes, mmap.MADV_DONTNEED)  # where that is refused, they go with the last view
