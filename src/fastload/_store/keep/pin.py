"""Pins: a snapshot that has one is never evicted to make room.

A pin is an empty file, so that it can be set and seen with nothing but a shell. It says nothing of who brought the
snapshot: other tools' snapshots can be pinned too, although fastload would not evict these in any case.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._store.filesystem import make_folder, remove_file, sync_folder, writing

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout


def pin(layout: RepoLayout, commit: str) -> None:
    """Keep the snapshot of ``commit``, whatever else is short of room. To do it twice does no harm.

    Raises:
        NotWritableError: this user may not write there.
        StoreError: it cannot be written.
    """
    path = layout.pin(commit)
    if is_pinned(layout, commit):
        return
    make_folder(os.path.dirname(path))
    with writing(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666))
    sync_folder(os.path.dirname(path))


def unpin(layout: RepoLayout, commit: str) -> None:
    """Let the snapshot of ``commit`` be evicted again. Without a pin, nothing is done.

    Raises:
        NotWritableError: this user may not write there.
        StoreError: it cannot be written.
    """
    if not is_pinned(layout, commit):  # looked at first: a read-only mount refuses to remove even what is not there
        return
    path = layout.pin(commit)
    remove_file(path)
    sync_folder(os.path.dirname(path))


def is_pinned(layout: RepoLayout, commit: str) -> bool:
    """True if the snapshot of ``commit`` has a pin."""
    return os.path.lexists(layout.pin(commit))
