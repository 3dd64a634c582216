"""Links that lead out of a tier: what they lead to is not opened, and nothing is written there.

Whoever can write to a mount could else choose which other files of this machine are read, taken for a model's, or
overwritten. A tier's own folder may be a link, as mount points are, and so may a path that a user gives; a link that
stays inside does no harm. What is looked at are the places that fastload and the hub's client make: the links of a
snapshot to its blobs are judged one by one where they are opened (:mod:`fastload._store.directory`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._store.layout import OUR_FOLDERS
from fastload._verify.path import OURS
from fastload.errors import StoreError, quoted

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout

_MEANT = (
    ". If that is meant, mount it there, make the folder above it a tier too (FASTLOAD_SHARED), or load it by its path"
)
"""In the reason, which is all that is told of a tier that could not be asked."""


def leads_out(path: str, root: str) -> bool:
    """True if a link on ``path`` leads out of ``root``, which may be a link itself."""
    real, top = os.path.realpath(path), os.path.realpath(root)
    return os.path.commonpath([real, top]) != top


def check_inside(path: str, root: str) -> None:
    """Check that no link on ``path`` leads out of ``root``.

    Raises:
        StoreError: one does; says where to, and what to do where that is meant.
    """
    if leads_out(path, root):
        real = quoted(os.path.realpath(path))
        raise StoreError(path, f"a link leads out of {quoted(root)}, to {real}{_MEANT}", "Else remove the link")


def check_repo(layout: RepoLayout) -> None:
    """Check that no folder of the repo, the hub's or ours, is a link out of the cache that the repo really lies in.

    Raises:
        StoreError: one is.
    """
    hubs = (os.path.join(layout.folder, name) for name in ("snapshots", "blobs", "refs", "trees", ".no_exist"))
    _check_links(layout, (*hubs, layout.ours(), *map(layout.ours, OUR_FOLDERS)))


def check_snapshot(layout: RepoLayout, commit: str) -> None:
    """The same, and of what is kept of one commit.

    Raises:
        StoreError: something is a link out.
    """
    check_repo(layout)
    files = (layout.tree, layout.manifest, layout.stamp, layout.mark, layout.reports, layout.pin)
    _check_links(layout, (layout.snapshot(commit), *(file(commit) for file in files)))


def check_own_folders(folder: str) -> None:
    """Check that what is ours in a plain ``folder`` lies in it.

    Raises:
        StoreError: a link leads out.
    """
    for name in ("", *OUR_FOLDERS, "leases"):
        check_inside(os.path.join(folder, OURS, name), folder)


def _check_links(layout: RepoLayout, paths: tuple[str, ...]) -> None:
    for path in paths:
        if os.path.islink(path):  # where links end is asked only of links: each costs a mount several answers
            check_inside(path, os.path.dirname(os.path.realpath(layout.folder)))
