"""Files that appear with all of their content or not at all: written under another name, and renamed at the end."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from fastload._store.filesystem import new_id, remove_file, sync_folder, writing

if TYPE_CHECKING:
    from collections.abc import Iterator


class Replacement:
    """A file to write and to read, which takes a name at the end, or goes.

    Until then what had the name before is there; that holds after a power cut too.
    """

    def __init__(self, path: str, scratch: str, *, stem: str | None = None) -> None:
        """Make it, empty.

        Args:
            path: the name that it takes.
            scratch: a folder on the same file system, for the file while it is not whole.
            stem: what its name there begins with, so that whoever sweeps knows what it was; by default as ``path``.

        Raises:
            StoreError: as :func:`~fastload._store.filesystem.writing` says.
        """
        self.path = path
        self._temporary = os.path.join(scratch, f"{stem or os.path.basename(path)}.{new_id()}")
        with writing(path):
            self.file: BinaryIO = open(self._temporary, "x+b")  # noqa: SIM115  (until publish or discard)

    def publish(self) -> None:
        """Let it take its name. Raises: as above; then it is left to :meth:`discard`."""
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
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
def replacing(path: str, scratch: str, *, stem: str | None = None) -> Iterator[BinaryIO]:
    """The file of a :class:`Replacement`, which is published at the end, or discarded where that is not reached."""
    made = Replacement(path, scratch, stem=stem)
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
