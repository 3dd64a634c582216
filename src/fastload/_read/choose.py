"""Which reader for which file? ``auto`` decides by file system, page-cache residency and what O_DIRECT may do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._cpus import count_cpus
from fastload._read.fallback import FallbackReader
from fastload._read.file import open_regular, translate
from fastload._read.kernel import LOCAL, MEMORY, NETWORK, cached_fraction, direct_alignment, file_system
from fastload._read.populate import PopulatingReader
from fastload._read.pread import BufferedReader, DirectReader
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from fastload._cpus import Cpus
    from fastload._read.reader import File, OpenReader

READERS = ("auto", "gds", "direct", "buffered", "mmap")
"""``gds`` reads straight to a device (:mod:`fastload._read.gds`); what it leaves to the host is read as by ``auto``."""
_WARM = 0.5
_LOCAL_DEPTH = 8
_MEMORY_DEPTHS = range(4, 17)
"""More threads than CPUs: fresh pages stall. Not many more: a few of them use up the memory's bandwidth."""
_NETWORK_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Choice:
    """A reader for one file, and why."""

    open: OpenReader
    name: str
    reason: str
    depth: int
    """Reads in flight that this storage wants."""
    cached: float | None = None
    """How much of the file is in the page cache; None where nobody looked."""
    digesting_depth: int | None = None
    """Instead of ``depth``, where whoever reads a block digests it; None: the same."""
    is_tunable: bool = False
    """True if it is worth while to find out how many reads at once the disk wants."""
    is_in_memory: bool = False
    """True for a file of this machine that ``auto`` found in memory: to read it is to copy."""
    is_paced: bool = False
    """True if each read waits for its turn, which nothing may get round."""


def choose_reader(file: File, wanted: str, cpus: Cpus | None = None, *, digests: bool = True) -> Choice:
    """The reader for ``file``.

    Args:
        file: which one.
        wanted: one of :data:`READERS`.
        cpus: whoever chooses for many files counts them once, as that takes longer than to look at a file; else they
            are counted.
        digests: True if whoever reads blocks may digest them; else nobody looks how many threads that wants.

    Raises:
        StoreError: the file cannot be looked at.
    """
    why = "asked for by name"
    if wanted == "direct":
        return Choice(DirectReader, "direct", why, _LOCAL_DEPTH)
    if wanted == "buffered":
        return Choice(BufferedReader, "buffered", why, _LOCAL_DEPTH)
    if wanted == "mmap":
        digesting_depth = _mapped_digesting_depth(file, cpus) if digests else None
        return Choice(PopulatingReader, "mmap", why, memory_depth(cpus), None, digesting_depth)
    return _choose(file, cpus)


def _mapped_digesting_depth(file: File, cpus: Cpus | None) -> int:
    """Threads that digest have no fresh pages to wait for; what is not in memory yet, some wait for on the disk."""
    descriptor = open_regular(file.path)
    try:
        is_warm = cached_fraction(descriptor, file.identity.size) >= _WARM
    except OSError as exc:
        raise translate(file.path, exc) from exc
    finally:
        os.close(descriptor)
    # In memory, more threads than CPUs push each other out of the CPU's caches.
    return min((cpus or count_cpus()).usable, _MEMORY_DEPTHS[-1]) if is_warm else _LOCAL_DEPTH


def memory_depth(cpus: Cpus | None = None) -> int:
    """Threads that copy from memory to memory.

    In a bare loop beside an H200 eight brought 25 GB/s, twelve 36, sixteen 42. Where a quota holds them, more threads
    than it has CPUs are stopped together.
    """
    cpus = cpus or count_cpus()
    least = _MEMORY_DEPTHS[0] if cpus.quota is None else 1
    return min(max(cpus.usable, least), _MEMORY_DEPTHS[-1])


def background_depth(cpus: Cpus | None = None) -> int:
    """The same, where one thread has others read, and must not wait for a CPU.

    Else it takes one from a reader, for milliseconds, and what is read in order waits for that reader's piece. In a
    bare loop beside an H200 fourteen or fifteen readers of sixteen CPUs brought 50 GB/s, twenty 33; in a load of 8 GB
    fourteen brought 43, sixteen 37.
    """
    depth = memory_depth(cpus)
    return depth - depth // 8


def is_memory(path: str) -> bool:
    """True if what is written below ``path`` stays in memory, as on tmpfs."""
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return file_system(descriptor) in MEMORY
    finally:
        os.close(descriptor)


def _choose(file: File, cpus: Cpus | None) -> Choice:
    descriptor = open_regular(file.path)
    try:
        kind = file_system(descriptor)
        if kind in MEMORY:
            return _copying(f"{kind} is memory", None, cpus, is_ours=True)
        cached = cached_fraction(descriptor, file.identity.size)
        alignment = direct_alignment(descriptor)
    except OSError as exc:
        raise translate(file.path, exc) from exc
    finally:
        os.close(descriptor)
    if cached >= _WARM:
        # Of what is on no disk of this machine, a server may be asked all the same.
        return _copying(f"{cached:.0%} of it is in the page cache", cached, cpus, is_ours=kind in LOCAL)
    if kind in NETWORK:
        return Choice(BufferedReader, "buffered", f"{kind} is a network file system", _NETWORK_DEPTH, cached)
    if kind in LOCAL and alignment:
        reason = f"local {kind}, {cached:.0%} cached"
        return Choice(_open_direct_first, "direct", reason, _LOCAL_DEPTH, is_tunable=True)
    why = f"{kind} takes no O_DIRECT" if kind in LOCAL else f"file system {kind}"
    return Choice(BufferedReader, "buffered", why, _LOCAL_DEPTH, cached)


def _copying(reason: str, cached: float | None, cpus: Cpus | None, *, is_ours: bool) -> Choice:
    """For what is in memory already."""
    return Choice(BufferedReader, "buffered", reason, memory_depth(cpus), cached, is_in_memory=is_ours)


def _open_direct_first(file: File) -> FallbackReader | BufferedReader:
    try:
        return FallbackReader(DirectReader(file), file)
    except UnsupportedError:
        return BufferedReader(file)
