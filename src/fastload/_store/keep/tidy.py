"""The folders of a repo that holds nothing yet, or nothing any more: both come and go by one rename.

Without ``snapshots/`` the hub's tools would take a repo for a broken one.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from fastload._store.filesystem import make_folder, new_id
from fastload._store.layout import OUR_FOLDERS, lease_folder
from fastload.errors import StoreError

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout

_EMPTIED = "emptied."


def make_empty(layout: RepoLayout) -> None:
    """Make the repo with ``snapshots/`` in it. Whoever dies on the way leaves what :func:`remove_emptied` finds.

    Raises:
        StoreError: it cannot be made.
    """
    if not os.path.lexists(layout.folder):
        built = _emptied(layout)
        make_folder(os.path.join(built, "snapshots"))
        with contextlib.suppress(OSError):  # somebody was faster, or took it for a dead one's; the next step says more
            os.rename(built, layout.folder)
        _remove_empty_below(built)
    make_folder(layout.snapshots)


def remove_empty(layout: RepoLayout) -> None:
    """Remove what is empty of the repo, and the repo if that is all of it. Whatever is in the way stays.

    The repo goes as a whole, by a rename.
    """
    for name in ("refs", "trees", ".no_exist"):
        _remove_empty_below(os.path.join(layout.folder, name))
    ours = map(layout.ours, OUR_FOLDERS)
    for path in (layout.blobs, *ours, layout.ours()):  # not what is below: staging may be in use
        with contextlib.suppress(OSError):  # not empty, or gone
            os.rmdir(path)
    target = _emptied(layout)
    with contextlib.suppress(OSError, StoreError):  # an empty folder more does no harm
        if os.listdir(layout.folder) == ["snapshots"] and not os.listdir(layout.snapshots):
            make_folder(os.path.dirname(target))
            os.rename(layout.folder, target)
            _put_down(target, layout)


def _put_down(emptied: str, layout: RepoLayout) -> None:
    if os.listdir(emptied) != ["snapshots"] or os.listdir(os.path.join(emptied, "snapshots")):
        os.rename(emptied, layout.folder)  # somebody has put something in at the last moment
    else:
        os.rmdir(os.path.join(emptied, "snapshots"))
        os.rmdir(emptied)


def _emptied(layout: RepoLayout) -> str:
    """A place for the repo while it is empty, by a name that tells whose it is."""
    root, name = os.path.split(layout.folder)
    return os.path.join(lease_folder(root), f"{_EMPTIED}{name}.{new_id()}")


def remove_emptied(root: str, name: str | None = None) -> None:
    """Remove repos that were empty in the hands of somebody who did not live to move or remove them.

    Args:
        root: the tier's folder.
        name: of the folder of one repo, for whoever brings it; None: all of them.
    """
    folder = lease_folder(root)
    with contextlib.suppress(OSError):
        for emptied in os.listdir(folder):
            whose, _, _ = emptied.removeprefix(_EMPTIED).rpartition(".")
            if emptied.startswith(_EMPTIED) and name in {None, whose}:
                _remove_empty_below(os.path.join(folder, emptied))


def _remove_empty_below(folder: str) -> None:
    """Remove ``folder``, as far as it is empty; what a link in its place leads to is not looked at."""
    if os.path.islink(folder):
        return
    for above, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):  # not empty, or gone
            os.rmdir(above)
