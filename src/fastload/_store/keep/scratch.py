"""Room for what another program writes: huggingface_hub, with ``transfer="hub"``, into a scratch folder.

What fastload stages it allocates at once, so that whoever asks for room sees it taken. Another program's files cannot
be allocated, and a placeholder would have to give way before they grow, to whoever is quicker. So it is promised:
``<staging>/hub.<id>/room`` is a file of holes as long as the promise, locked while its owner lives. What of it has not
been written yet is room that nobody else may count on (docs/adr/0015).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from fastload._store.filesystem import make_folder, new_id, writing
from fastload._store.keep.disk import count_disk_bytes, list_folder
from fastload._store.lease.lock import flock_is_truthful, open_lock, try_exclusive
from fastload._store.left import make_new
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "hub."
_PROMISE = "room"
_FILES = "files"


class Scratch:
    """A scratch folder. Nothing is made before there is something to promise."""

    def __init__(self, staging: str, files_at_once: int) -> None:
        """``files_at_once``: how many files of what is brought are there at the same time, at most."""
        self._folder = os.path.join(staging, f"{_PREFIX}{new_id()}")
        self.files_at_once = files_at_once
        self._promise: int | None = None

    @property
    def files(self) -> str:
        """Where the other program may write."""
        return os.path.join(self._folder, _FILES)

    def promise(self, nbytes: int) -> None:
        """Keep others from counting on so much room, until :meth:`close` or this process's end.

        Raises:
            StoreError: it cannot be written.
        """
        make_folder(self._folder)
        path = os.path.join(self._folder, _PROMISE)
        with writing(path):
            self._promise = make_new(path)
            try_exclusive(self._promise)
            os.ftruncate(self._promise, nbytes)

    def close(self) -> None:
        """Remove it with all that is in it."""
        if self._promise is not None:
            os.close(self._promise)
            self._promise = None
        shutil.rmtree(self._folder, ignore_errors=True)


def count_promised_bytes(staging: Iterable[str]) -> int:
    """What those who live will still write into scratches in these folders; of another user's nobody can say."""
    total_bytes = 0
    for folder in staging:
        with suppress(StoreError):
            scratches = [name for name in list_folder(folder) if name.startswith(_PREFIX)]
            total_bytes += sum(_count_unwritten(os.path.join(folder, name)) for name in scratches)
    return total_bytes


def _count_unwritten(scratch: str) -> int:
    path = os.path.join(scratch, _PROMISE)
    try:
        promise = open_lock(path)
    except OSError:  # gone, or it promised nothing
        return 0
    try:
        if try_exclusive(promise) and flock_is_truthful(path):
            return 0  # a dead one's
        promised_bytes = os.fstat(promise).st_size
    finally:
        os.close(promise)
    return max(0, promised_bytes - count_disk_bytes(os.path.join(scratch, _FILES)))
