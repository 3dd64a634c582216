"""What the kernel tells about an open file: its file system, how O_DIRECT must be aligned, how much of it is cached.

By ctypes, since Python wraps none of them. Each answers from the descriptor, so that a replaced path cannot mislead.
"""

from __future__ import annotations

import ctypes
import os
import time

_AT_EMPTY_PATH = 0x1000
_STATX_BASIC_STATS = 0x7FF
_STATX_DIOALIGN = 0x2000
_STATX_BYTES = 256
_LINKS, _INODE_AND_SIZE, _CHANGED_AND_MODIFIED = slice(0x10, 0x14), slice(0x20, 0x30), slice(0x60, 0x80)
_DIO_MEM_ALIGN_AT = 0x98  # offsets in struct statx, <linux/stat.h>
_DIO_OFFSET_ALIGN_AT = 0x9C
_SYS_CACHESTAT = 451  # the same number on every architecture
DIRECT_ALIGNMENT_BYTES = 4096
"""Of direct reads, where the file system does not say; hardly one asks for more."""
_PROBES = 64
_SAMPLES = 32
_SAMPLE_BYTES = 1 << 20  # 1 MiB

NETWORK = frozenset(
    {"nfs", "cifs", "smb2", "lustre", "ceph", "gpfs", "fuse", "9p", "beegfs", "afs"}
)  # virtiofs shows fuse's number
MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs"})
LOCAL = frozenset({"ext4", "xfs", "btrfs", "f2fs", "bcachefs"})
"""Where O_DIRECT pays. Not overlayfs: it says of every file that none of it is cached."""

_NAMES = {  # <linux/magic.h>, statfs(2)
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x0BD00BD0: "lustre",
    0x00C36400: "ceph",
    0x47504653: "gpfs",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x19830326: "beegfs",
    0x5346414F: "afs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x958458F6: "hugetlbfs",
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x794C7630: "overlayfs",
    0x2FC12FC1: "zfs",
}

_libc = ctypes.CDLL(None, use_errno=True)
_brief = ctypes.PyDLL(None)


def file_system(descriptor: int) -> str:
    """The file system's name; an unknown one as its number in hex."""
    answer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(descriptor, answer):
        return "unknown"
    number = ctypes.c_ulong.from_buffer(answer).value & 0xFFFFFFFF
    return _NAMES.get(number, hex(number))


def direct_alignment(descriptor: int) -> int:
    """What address, offset and length of an O_DIRECT read must be multiples of, in bytes; 0: no O_DIRECT on this file.

    A kernel or file system that does not say is no refusal: 4096 suits every device there is.
    """
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_DIOALIGN, answer):
        return DIRECT_ALIGNMENT_BYTES
    mask, memory, offset = (
        ctypes.c_uint32.from_buffer(answer, at).value for at in (0, _DIO_MEM_ALIGN_AT, _DIO_OFFSET_ALIGN_AT)
    )
    if not mask & _STATX_DIOALIGN:
        return DIRECT_ALIGNMENT_BYTES
    return max(DIRECT_ALIGNMENT_BYTES, memory, offset) if memory and offset else 0


def look_briefly(descriptor: int) -> bytes | None:
    """Links, inode, size, and times of change, to compare with what they were before; None: the kernel does not say.

    It keeps the GIL, for which sixteen readers stand in line: not for files of which a server has to be asked.
    """
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if _brief.statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BASIC_STATS, answer):
        return None
    raw = answer.raw
    return raw[_LINKS] + raw[_INODE_AND_SIZE] + raw[_CHANGED_AND_MODIFIED]


def cached_fraction(descriptor: int, size: int) -> float:
    """How much of the file is in the page cache, 0 … 1; of a large one by samples all over it.

    To count the pages of 8 GB took 35 ms beside an H200, a tenth of the whole load. ``mincore`` was rejected: to a user
    who does not own the file it says that all of it is.
    """
    if not size:
        return 1.0
    page_bytes = os.sysconf("SC_PAGESIZE")
    sample_bytes, stride, first = size, size, 0
    if size > _SAMPLES * _SAMPLE_BYTES:
        sample_bytes, stride = _SAMPLE_BYTES, size // _SAMPLES // page_bytes * page_bytes
        # In the midst of each part: the file's beginning, where its header was read, stands for nothing else.
        first = (stride - sample_bytes) // 2 // page_bytes * page_bytes
    cached = pages = 0
    for offset in range(first, size - sample_bytes + 1, stride):
        found = count_cached_pages(descriptor, offset, sample_bytes)
        if found is None:
            return _probe_cache(descriptor, size)
        cached += found
        pages += -(-sample_bytes // page_bytes)
    return min(1.0, cached / pages)


def is_cached(descriptor: int, offset: int, length: int) -> bool:
    """True if every page of these bytes is in the page cache; False also where the kernel does not tell."""
    page_bytes = os.sysconf("SC_PAGESIZE")
    pages = -(-(offset + length) // page_bytes) - offset // page_bytes
    cached = count_cached_pages(descriptor, offset, length)
    return cached is not None and cached >= pages


def count_cached_pages(descriptor: int, offset: int, length: int) -> int | None:
    """Pages of these bytes that are in the page cache, by cachestat (Linux 6.5); None where that is refused."""
    span = (ctypes.c_uint64 * 2)(offset, length)
    counts = (ctypes.c_uint64 * 5)()
    if _libc.syscall(ctypes.c_long(_SYS_CACHESTAT), descriptor, span, counts, 0):
        return None
    return counts[0]


def _probe_cache(descriptor: int, size: int) -> float:
    """Where cachestat is refused: single bytes, read only if that needs no waiting.

    Every call asks for others, because the kernel fetches the page of a byte it refused: asked twice for the same ones,
    a cold file would look warm.
    """
    buffer = bytearray(1)
    hits = 0
    for number in range(_PROBES):
        somewhere = time.monotonic_ns() % max(1, size // _PROBES)
        try:
            hits += os.preadv(descriptor, [buffer], size * number // _PROBES + somewhere, os.RWF_NOWAIT)
        except BlockingIOError:
            continue
        except OSError:  # the file system has no RWF_NOWAIT: nothing is known, and reading past the cache is safe
            return 0.0
    return hits / _PROBES
