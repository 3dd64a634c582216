"""The manifests of a snapshot, as far as they still speak for its files: for a load, and for who copies them.

A folder is its owner's: what he has written since it was recorded is another file, of which nothing is known, and no
damage. What changed under the same mtime is damage. The rules are :mod:`fastload._verify.trust`'s; here is looked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._store.folder_manifest import find_folder_manifest
from fastload._store.folder_stamp import look_at_times
from fastload._store.listing import DOWNLOADS, find_unfinished
from fastload._store.stored import CachedSnapshot
from fastload._store.wanted import deciding_of
from fastload._verify.difference import Difference
from fastload._verify.path import is_vital
from fastload._verify.trust import (
    RECORDED,
    Believed,
    Contradicted,
    KeptManifest,
    Known,
    PassedOver,
    believe_beside,
    believe_kept,
    find_contradicting,
)
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored

UNNAMED = Difference("a shard that the manifest does not name", "only shards that it names")
RECORD_AGAIN = "where it was meant so, record the folder again: fastload verify NAME --record"


def find_record(
    folder: str, list_named: Callable[[], Iterable[OfferedFile]]
) -> Believed | Contradicted | PassedOver | None:
    """What was recorded of the files in a plain folder; None where nothing was.

    Args:
        folder: the plain folder.
        list_named: gives its files with what notes of a download say of them; asked where there are such notes.

    Raises:
        FormatError, StoreError: the manifest is malformed or cannot be read.
    """
    manifest = find_folder_manifest(folder)
    if manifest is None or isinstance(manifest, PassedOver):
        return manifest
    named = tuple(list_named()) if os.path.isdir(os.path.join(folder, DOWNLOADS)) else ()
    contradicting = find_contradicting(named, manifest)
    if contradicting:
        return Contradicted(contradicting[0])
    times, are_told = look_at_times(folder, manifest) if manifest.source == RECORDED else ((), True)
    return believe_beside(manifest, times, deciding_of(named), are_told=are_told)


def has_lost(folder: str, there: Iterable[OfferedFile]) -> bool:
    """True if a plain ``folder`` lacks some of what a load goes by, by the manifest in it, or has it at another length.

    Not where a download is under way: then it is becoming another one.
    """
    try:
        manifest = find_folder_manifest(folder)
    except (FormatError, StoreError):
        return False
    if manifest is None or isinstance(manifest, PassedOver) or find_unfinished(folder) is not None:
        return False
    sizes = {file.path: file.size for file in there}
    return any(is_vital(file.path) and sizes.get(file.path) != file.size for file in manifest.files)


def find_kept(
    stored: Stored,
    files: Collection[OfferedFile],
    manifests: ManifestFolder | None,
    *,
    is_recorded: bool,
    is_closed: bool,
) -> Believed | Contradicted | PassedOver | None:
    """What is kept apart of ``stored``; None where nothing is, or all blocks are known without it.

    Args:
        stored: the snapshot.
        files: what is known of its files, by the tier and by the manifest beside them.
        manifests: where manifests are kept apart.
        is_recorded: digests of theirs are no more than what somebody had recorded.
        is_closed: the manifest beside them says which there should be.

    Raises:
        FormatError, StoreError: the manifest is malformed or cannot be read, and nothing else has the blocks of what
            decides.
    """
    if manifests is None or all(file.blocks is not None for file in files):
        return None
    try:
        kept = manifests.find(stored)
    except (FormatError, StoreError) as exc:
        if any(file.blocks is None for file in deciding_of(files)):
            raise
        return PassedOver(manifests.path, f"has one that is not needed, and of which nothing is known: {exc}")
    if not isinstance(kept, KeptManifest):
        return kept
    is_whole = is_closed or isinstance(stored, CachedSnapshot)
    return believe_kept(kept, Known(files, deciding_of(files), is_recorded=is_recorded, is_whole=is_whole))
