"""The files of a stored snapshot, held to the manifest that somebody had made of them: for who copies them.

As a load is: what is damage to a load is not copied either.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._format.index import SHARD_SUFFIX
from fastload._store.folder_record import find_kept, find_record
from fastload._store.offer import OfferedFile
from fastload._store.stored import PlainFolder
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.path import is_index
from fastload._verify.trust import Believed

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.stored import Stored
    from fastload._verify.manifest import Manifest, ManifestFile
    from fastload._verify.trust import Contradicted, PassedOver


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of the files."""

    files: tuple[OfferedFile, ...]
    """Those that are there, and what a load goes by that should be."""
    evidence: EvidenceKind
    unnamed: frozenset[str] = frozenset()
    """Shards that are there, and that a load would refuse: the manifest beside them does not name them."""
    may_be_meant: bool = False
    """True if some are held to what their owner alone has said of them, and may say otherwise."""
    is_closed: bool = False
    """True if the manifest beside the files says which of them there are."""


def hold(
    stored: Stored, files: tuple[OfferedFile, ...], evidence: EvidenceKind, manifests: ManifestFolder | None = None
) -> Held:
    """``files``, those that are there, with the blocks of the manifest beside them and of the one that is kept apart.

    Args:
        stored: the snapshot; in the hub's layout it has no manifest beside the files.
        files: with the digests that the tier itself names them by.
        evidence: what these are.
        manifests: where a manifest may be kept apart.

    Raises:
        FormatError, StoreError: a manifest is malformed or cannot be read.
    """
    beside = find_record(stored.folder, lambda: files) if isinstance(stored, PlainFolder) else None
    held = _hold(Held(files, evidence), beside)
    is_recorded = isinstance(beside, Believed) and beside.kind is EvidenceKind.RECORDED
    kept = find_kept(stored, held.files, manifests, is_recorded=is_recorded, is_closed=held.is_closed)
    return _hold(held, kept)


def offered_file(file: ManifestFile) -> OfferedFile:
    """What a manifest knows of one file."""
    return OfferedFile(
        path=file.path, size=file.size, sha256=file.sha256, git_sha1=file.git_sha1, blocks=file.blocks
    )  # fmt: skip


def _hold(held: Held, word: Believed | Contradicted | PassedOver | None) -> Held:
    """``held`` by a manifest, as far as it is believed; evidence is of its kind where it speaks for all files."""
    if not isinstance(word, Believed):
        return held
    proven = word.proven
    there = tuple(_hold_file(file, proven.get(file.path)) for file in held.files)
    lost = map(offered_file, word.find_lost({file.path for file in there}))
    return Held(
        files=tuple(sorted((*there, *lost), key=lambda file: file.path)),
        evidence=word.kind if all(file.blocks is not None for file in there) else held.evidence,
        unnamed=frozenset(_find_unnamed(there, word.manifest)) if word.is_closed else held.unnamed,
        may_be_meant=held.may_be_meant or word.may_be_meant,
        is_closed=held.is_closed or word.is_closed,
    )


def _hold_file(file: OfferedFile, listed: ManifestFile | None) -> OfferedFile:
    """A file that is there, with what a manifest says of it."""
    if listed is None or file.blocks is not None:
        return file
    known = offered_file(listed)
    return replace(known, git_sha1=known.git_sha1 or file.git_sha1, mtime_ns=file.mtime_ns)


def _find_unnamed(files: Collection[OfferedFile], manifest: Manifest) -> list[str]:
    """The shards that would be loaded too, where no index says which there are."""
    indexed = {posixpath.dirname(file.path) for file in manifest.files if is_index(file.path)}
    shards = (file.path for file in files if file.path.endswith(SHARD_SUFFIX))
    return [path for path in shards if manifest.find(path) is None and posixpath.dirname(path) not in indexed]
