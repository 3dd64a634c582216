"""Stored files that are mended: which of them may be, and how one takes the place of another."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from fastload._read.file import read_fully, regular_only
from fastload._store.directory import contained_target
from fastload._store.filesystem import make_folder, replacing
from fastload._store.listing import with_digest
from fastload._store.stored import CachedSnapshot
from fastload._verify.digest import BLOCK_BYTES, block_length, count_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import FileIO

    from fastload._store.layout import RepoLayout
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored


def in_its_folder(path: str, root: str) -> str:
    """``path`` itself, be it a link, where its folder leads to, which must be below ``root``; else ``FormatError``."""
    above, name = os.path.split(path)
    return os.path.join(contained_target(above, root), name)


def leads_elsewhere(stored: Stored, file: OfferedFile) -> bool:
    """True if the link of ``file`` leads to what is not called by its digest, or to no blob of the repo.

    Then the link is wrong, and not what it leads to, whose bytes other snapshots, or another model, may need.
    """
    path = os.path.join(stored.folder, file.path)
    if not os.path.islink(path):
        return False
    first = os.path.join(os.path.dirname(path), os.readlink(path))
    named = with_digest(replace(file, sha256=None, git_sha1=None), os.path.basename(first))
    if named.contradicts(file):
        return True
    says_all = (named.sha256 or named.git_sha1) in {file.sha256, file.git_sha1} - {None}
    return isinstance(stored, CachedSnapshot) and not says_all and not is_blob(first, stored.layout)


def is_blob(path: str, layout: RepoLayout) -> bool:
    """True if ``path``, be it a link or not, lies where the blobs of the repo are."""
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(layout.blobs)


def replace_blocks(path: str, blocks: Mapping[int, bytes], scratch: str, count: Callable[[int], object]) -> None:
    """A copy of the file with these blocks takes its name, made in ``scratch``; ``count`` is told what was read of it.

    Raises:
        StoreError: it cannot be read, or written.
    """
    make_folder(scratch)
    with replacing(path, scratch) as file:
        with open(path, "rb", buffering=0, opener=regular_only) as damaged:
            size = os.fstat(damaged.fileno()).st_size
            for index in range(count_blocks(size)):
                block: bytes | memoryview | None = blocks.get(index)
                if block is None:  # what is replaced is not read: it may be what the disk cannot give
                    block = _read_stored(damaged, index, size)
                    count(len(block))
                file.write(block)
        file.flush()
        look_like(path, file)


def _read_stored(damaged: FileIO, index: int, size: int) -> memoryview:
    block = memoryview(bytearray(block_length(index, size)))
    read_fully(damaged.fileno(), index * BLOCK_BYTES, [block], path=str(damaged.name))
    return block


def look_like(path: str, file: BinaryIO) -> None:
    """Whoever might read the old file may read the new one; and it is what it was, not a new version."""
    status = os.stat(path)
    with suppress(PermissionError):  # only root gives files away
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
    shutil.copystat(path, file.name)
