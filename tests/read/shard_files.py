"""Real shards in real files, and the memory that readers fill."""

from __future__ import annotations

import hashlib
import mmap
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._format.checkpoint import FileIdentity, Shard
from fastload._format.header import Header
from fastload._read.head import read_header
from fastload._verify.digest import BLOCK_BYTES
from writing import pack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = hashlib.shake_128(b"weights").digest(2 * BLOCK_BYTES + 123_457)
"""Two blocks and an odd tail, no two pages alike."""


def write_shard(path: Path, data: bytes = DATA) -> Shard:
    """A shard of one tensor, and its header as a load would read it."""
    path.write_bytes(pack({"weights": ("U8", [len(data)], data)}))
    return Shard(path.name, str(path), *read_header(str(path)))


def bare_shard(path: str) -> Shard:
    """A shard that was never read, for what is refused before anything is looked at."""
    return Shard(os.path.basename(path), path, Header((), {}, 10, 10, ""), FileIdentity(0, 0, 10, 0, 0))


def aligned_memory(nbytes: int) -> memoryview:
    """Page-aligned memory full of a byte that tells it was not written."""
    memory = memoryview(mmap.mmap(-1, max(1, nbytes)))[:nbytes]
    memory[:] = b"\xee" * nbytes
    return memory


def open_descriptors() -> set[str]:
    """What this process has open: number and target of each."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:  # the listing's own
            continue
    return found


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """What is opened inside must be closed inside."""
    before = open_descriptors()
    yield
    left = open_descriptors() - before  # what others opened may be gone by now
    assert not left, f"left open: {left}"
