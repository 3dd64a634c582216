"""Which snapshots a resident warmer brought, by its list: only these may it take away again.

An empty file per snapshot, as a pin is; it goes with the snapshot.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._store.filesystem import make_folder, sync_folder, writing

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout


def mark_listed(layout: RepoLayout, commit: str) -> None:
    """Say that it was brought by a list. To do it twice does no harm.

    Raises:
        StoreError: it cannot be written.
    """
    path = layout.listed(commit)
    make_folder(os.path.dirname(path))
    with writing(path):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666))
    sync_folder(os.path.dirname(path))


def is_listed(layout: RepoLayout, commit: str) -> bool:
    """True if it was."""
    return os.path.lexists(layout.listed(commit))
