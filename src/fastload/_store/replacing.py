"""Files that appear with all of their content or not at all: written under no name, or another, and then renamed."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from fastload._store.filesystem import new_id, remove_file, sync_folder, writing

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_UNNAMED = frozenset({errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What kernels and file systems say that have no O_TMPFILE; see open(2)."""


class Replacement:
    """A file to write and to read, which takes a name at the end, or goes.

    Until then what had the name before is there; that holds after a power cut too.
    """

    def __init__(self, path: str, scratch: str, *, stem: str | None = None, is_unnamed: bool = False) -> None:
        """Make it, empty.

        Args:
            path: the name that it takes.
            scratch: a folder on the same file system, for the file while it is not whole.
            stem: what its name there begins with, so that whoever sweeps knows what it was; by default as ``path``.
            is_unnamed: it has no name before the end, where the file system can do that: nobody finds it, and it is
                gone with the process that made it.

        Raises:
            StoreError: as :func:`~fastload._store.filesystem.writing` says.
        """
        self.path = path
        self._temporary = os.path.join(scratch, f"{stem or os.path.basename(path)}.{new_id()}")
        with writing(path):
            unnamed = _open_unnamed(scratch) if is_unnamed else None
            self._is_unnamed = unnamed is not None
            self.file: BinaryIO = unnamed or self._open_named()

    def _open_named(self) -> BinaryIO:
        try:
            return open(self._temporary, "x+b")
        except BaseException:
            remove_file(self._temporary)
            raise

    def publish(self) -> None:
        """Let it take its name. Raises: as above; then it is left to :meth:`discard`."""
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            if self._is_unnamed:
                _give_name(self.file.fileno(), self._temporary)
            self.file.close()
            os.replace(self._temporary, self.path)
        sync_folder(os.path.dirname(self.path))

    def discard(self) -> None:
        """Remove it; what has the name stays.

        Raises:
            StoreError: it may not be removed.
        """
        with suppress(OSError):  # what it has no room for goes with it
            self.file.close()
        remove_file(self._temporary)


@contextmanager
def replacing(path: str, scratch: str, *, stem: str | None = None, is_unnamed: bool = False) -> Iterator[BinaryIO]:
    """The file of a :class:`Replacement`, which is published at the end, or discarded where that is not reached."""
    made = Replacement(path, scratch, stem=stem, is_unnamed=is_unnamed)
    try:
        with writing(path):
            yield made.file
        made.publish()
    except BaseException:
        made.discard()
        raise


def write_whole(path: str, content: bytes, scratch: str, *, stem: str | None = None) -> None:
    """A file that appears with all of ``content`` or not at all. Raises: as :class:`Replacement`."""
    with replacing(path, scratch, stem=stem) as file:
        file.write(content)


def _open_unnamed(scratch: str) -> BinaryIO | None:
    try:
        descriptor = os.open(scratch, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except OSError as exc:
        if exc.errno in _NO_UNNAMED and os.path.isdir(scratch):
            return None
        raise
    if not os.path.exists(_own_path(descriptor)):  # without /proc it would never get a name
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "w+b")


def _give_name(descriptor: int, path: str) -> None:
    """See open(2), O_TMPFILE: by its link in /proc, which ``linkat`` follows when it is told to."""
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # Python asks for link(2), which follows nothing, unless there is a folder to begin at
        os.link(_own_path(descriptor), path, src_dir_fd=here, follow_symlinks=True)
    finally:
        os.close(here)


def _own_path(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"
