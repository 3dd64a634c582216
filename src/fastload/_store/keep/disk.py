"""What lies below a folder that others change meanwhile, and what it takes of the disk.

What is gone counts as nothing; what cannot be read is an error, since it might be anything.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
_BLOCK_BYTES = 512
"""The unit of ``st_blocks`` (stat(2)), whatever the file system's own."""


def list_folder(path: str) -> list[str]:
    """The names in a folder, sorted; none where it is gone.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return sorted(os.listdir(path))
    except OSError as exc:
        _raise_unless_gone(exc)
        return []


def walk(folder: str) -> Iterator[str]:
    """The paths of all files and links below ``folder``, links not followed; none where it is gone.

    Raises:
        StoreError: a folder cannot be read.
    """
    for above, folders, names in os.walk(folder, onerror=_raise_unless_gone):
        paths = [os.path.join(above, name) for name in folders]
        yield from (path for path in paths if os.path.islink(path))
        yield from (os.path.join(above, name) for name in names)


def count_disk_bytes(path: str) -> int:
    """What the disk has more once the file, or all files below the folder, are removed.

    Raises:
        StoreError: a folder cannot be read.
    """
    paths = walk(path) if os.path.isdir(path) and not os.path.islink(path) else (path,)
    return sum(map(_count_own_bytes, paths))


def _count_own_bytes(path: str) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    # What another name leads to as well is not freed by removing this one.
    return status.st_blocks * _BLOCK_BYTES if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 else 0


def find_inode(path: str) -> tuple[int, int] | None:
    """Which file ``path`` leads to; None where it leads nowhere."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def find_mtime_ns(path: str) -> int | None:
    """When ``path`` itself was last written; None where nothing is."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return None


def _raise_unless_gone(exc: OSError) -> None:
    if exc.errno not in _GONE:
        hint = "Give this user read and search permission, or check the mount"
        raise StoreError(str(exc.filename), f"cannot be read ({exc.strerror})", hint) from exc
