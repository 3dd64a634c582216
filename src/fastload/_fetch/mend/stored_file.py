"""Stored files that are mended: which of them may be, and how one takes the place of another."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from fastload._store.containment import check_own_folders
from fastload._store.directory import contained_target
from fastload._store.linked import link_target
from fastload._store.listing import with_digest
from fastload._store.offer import OfferedFile
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._verify.path import OURS

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout
    from fastload._store.stored import Stored


MENDED_STEM = "mended"
"""What is made to mend a file is called by: nothing that a holder of a lease makes, and that the next one sweeps."""


def scratch_of(stored: Stored) -> str:
    """The folder for files that are not whole yet: on the file system of the stored ones.

    Raises:
        StoreError: in a plain folder a link there leads out of it; a cache was looked at when it was found.
    """
    if isinstance(stored, PlainFolder):
        check_own_folders(stored.folder)
        return os.path.join(stored.folder, OURS, "staging")
    return stored.layout.ours("staging")


def in_its_folder(path: str, root: str) -> str:
    """``path`` itself, be it a link, where its folder leads to, which must be below ``root``; else ``FormatError``."""
    above, name = os.path.split(path)
    return os.path.join(contained_target(above, root), name)


def leads_elsewhere(stored: Stored, file: OfferedFile) -> bool:
    """True if the link of ``file`` leads to what is called by none of its digests, or to no blob of the repo.

    Then the link is wrong, and not what it leads to, whose bytes other snapshots, or another model, may need. A digest
    of a kind that nobody knows of the file is another file's: a blob is called by what its manifest, or listing, says.
    """
    path = os.path.join(stored.folder, file.path)
    target = link_target(path)
    if target is None:
        return False
    named = with_digest(OfferedFile(path=file.path, size=0), os.path.basename(target))
    if named.has_digest and file.has_digest:
        return named.blob_name not in {file.sha256, file.git_sha1}
    blob = os.path.join(os.path.dirname(path), target)
    return isinstance(stored, CachedSnapshot) and not is_blob(blob, stored.layout)


def is_blob(path: str, layout: RepoLayout) -> bool:
    """True if ``path``, be it a link or not, lies where the blobs of the repo are."""
    return os.path.realpath(os.path.dirname(path)) == os.path.realpath(layout.blobs)


def look_like(path: str, file: BinaryIO) -> None:
    """Whoever might read the old file may read the new one; and it is what it was, not a new version."""
    status = os.stat(path)
    with suppress(PermissionError):  # only root gives files away
        os.fchown(file.fileno(), status.st_uid, status.st_gid)
    shutil.copystat(path, file.fileno())  # type: ignore[arg-type]  # which serves as a path: it may have no name
