"""``--link``: a path that always leads to the snapshot that was brought last."""

from __future__ import annotations

import os

from fastload._store.filesystem import make_folder, new_id, put_link
from fastload.errors import UsageError


def check_link(path: str, root: str) -> None:
    """Check, before anything is brought, that ``path`` may be a link to a snapshot below ``root``.

    Raises:
        UsageError: the path lies in the cache, whose tools would take it for something else; or is no link.
    """
    full = os.path.abspath(path)
    folder = os.path.realpath(os.path.dirname(full))
    if os.path.commonpath([folder, os.path.realpath(root)]) == os.path.realpath(root):
        raise UsageError(f"link {path!r} lies in the cache {root!r}", "Give a path outside of it")
    if os.path.lexists(full) and not os.path.islink(full):
        raise UsageError(f"link {path!r} is there, and no link", "Remove it, or give another path")


def point_link(path: str, snapshot: str) -> None:
    """Let ``path`` be a relative link to the folder ``snapshot``, in one step; a link that is there is replaced.

    Raises:
        StoreError: it cannot be written.
    """
    full = os.path.abspath(path)
    folder = os.path.realpath(os.path.dirname(full))
    target = os.path.relpath(os.path.realpath(snapshot), folder)
    if os.path.islink(full) and os.readlink(full) == target:
        return
    make_folder(folder)
    put_link(full, target, f"{full}.{new_id()}")
