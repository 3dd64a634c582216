"""Removing the folders of a repo that holds nothing any more."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from fastload._store.filesystem import make_folder, new_id
from fastload._store.layout import lease_folder
from fastload.errors import StoreError

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout

_EMPTIED = "emptied."
_OURS = ("manifests", "stamps", "pins", "listed", "reports", "marks", "journals", "staging")


def remove_empty(layout: RepoLayout) -> None:
    """Remove what is empty of the repo, and the repo if that is all of it. Whatever is in the way stays.

    The repo goes as a whole, by a rename: without ``snapshots/`` the hub's tools would take it for a broken one.
    """
    for name in ("refs", "trees", ".no_exist"):
        _remove_empty_below(os.path.join(layout.folder, name))
    for path in (layout.blobs, *map(layout.ours, _OURS), layout.ours()):  # not what is below: staging may be in use
        with contextlib.suppress(OSError):  # not empty, or gone
            os.rmdir(path)
    root = os.path.dirname(layout.folder)
    target = os.path.join(lease_folder(root), f"{_EMPTIED}{new_id()}")
    with contextlib.suppress(OSError, StoreError):  # an empty folder more does no harm
        if os.listdir(layout.folder) == ["snapshots"] and not os.listdir(layout.snapshots):
            make_folder(lease_folder(root))
            os.rename(layout.folder, target)
            _put_down(target, layout)


def _put_down(emptied: str, layout: RepoLayout) -> None:
    if os.listdir(emptied) != ["snapshots"] or os.listdir(os.path.join(emptied, "snapshots")):
        os.rename(emptied, layout.folder)  # somebody has put something in at the last moment
    else:
        os.rmdir(os.path.join(emptied, "snapshots"))
        os.rmdir(emptied)


def remove_emptied(root: str) -> None:
    """Remove repos that were found empty by somebody who did not live to remove them."""
    folder = lease_folder(root)
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_EMPTIED):
                _remove_empty_below(os.path.join(folder, name))


def _remove_empty_below(folder: str) -> None:
    for above, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty, or gone
            os.rmdir(above)
