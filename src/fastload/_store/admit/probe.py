"""What a place can hold, tried out before a byte moves: symbolic links, renames, syncs."""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from fastload._store.filesystem import make_folder, new_id, sync_folder, translate_write
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from fastload._store.admit.area import StagingArea

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


def probe(area: StagingArea, *, needs_links: bool) -> None:
    """Do once, with an empty file, what publishing will do.

    Raises:
        UnsupportedError: the file system has no symbolic links, which the hub's layout needs.
        StoreError: it cannot be written.
    """
    area.make()
    folder = os.path.join(area.parts, f"probe.{new_id()}")
    make_folder(folder)
    try:
        _try_file(os.path.join(folder, "a"), os.path.join(folder, "b"))
        if needs_links:
            _try_link(os.path.join(folder, "link"))
        sync_folder(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try_file(path: str, other: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.write(descriptor, b"probe")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(path, other)
    except OSError as exc:
        raise translate_write(path, exc) from exc


def _try_link(path: str) -> None:
    try:
        os.symlink("b", path)
    except OSError as exc:
        if exc.errno in _NO_LINKS:
            what = f"{path!r} cannot be a symbolic link: this file system has none, and the hub's layout needs them"
            raise UnsupportedError(what, "Bring real files with --plain DIR") from exc
        raise translate_write(path, exc) from exc
