"""The files of a stored snapshot, held to the manifest that somebody had made of them: for who copies them.

As a load is: what is damage to a load is not copied either.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._format.index import SHARD_SUFFIX
from fastload._store.folder_record import SOURCE, Recorded, find_record
from fastload._store.manifest_folder import KeptManifest
from fastload._store.offer import OfferedFile
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.path import is_index, is_loaded

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.stored import Stored
    from fastload._verify.manifest import Manifest, ManifestFile


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of the files."""

    files: tuple[OfferedFile, ...]
    """Those that are there, and the weights and indexes that should be."""
    evidence: EvidenceKind
    unnamed: frozenset[str] = frozenset()
    """Shards that are there, and that a load would refuse: the manifest beside them does not name them."""
    is_recorded: bool = False
    """True if some are held to what they were when somebody had them recorded."""
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
    return _hold_to_kept(stored, _hold_to_record(stored, Held(files, evidence)), manifests)


def offered_file(file: ManifestFile) -> OfferedFile:
    """What a manifest knows of one file."""
    return OfferedFile(
        path=file.path, size=file.size, sha256=file.sha256, git_sha1=file.git_sha1, blocks=file.blocks
    )  # fmt: skip


def _hold_to_record(stored: Stored, held: Held) -> Held:
    """By the manifest in a plain folder."""
    record = find_record(stored.folder, lambda: held.files) if isinstance(stored, PlainFolder) else None
    if not isinstance(record, Recorded):
        return held
    manifest = record.manifest
    kind = EvidenceKind.RECORDED if manifest.source == SOURCE else EvidenceKind.MANIFEST
    found = _hold(held, manifest, {*record.rewritten, *record.untold}, kind)
    if not record.is_closed:
        return found
    unnamed = frozenset(_find_unnamed(found.files, manifest))
    return replace(found, files=_with_lost(found.files, manifest), unnamed=unnamed, is_closed=True)


def _hold_to_kept(stored: Stored, held: Held, manifests: ManifestFolder | None) -> Held:
    """By the manifest that is kept apart, if what is known and seen of the files agrees."""
    if manifests is None or all(file.blocks is not None for file in held.files):
        return held
    kept = manifests.find(stored)
    if not isinstance(kept, KeptManifest) or kept.find_contradiction(held.files) is not None:
        return held
    found = _hold(held, kept.manifest, kept.find_rewritten(held.files), EvidenceKind.RECORDED)
    has_unknown = any(is_loaded(file.path) and not file.has_digest for file in found.files)
    if isinstance(stored, CachedSnapshot) or held.is_closed or has_unknown:
        return found
    return replace(found, files=_with_lost(found.files, kept.manifest))


def _hold(held: Held, manifest: Manifest, unknown: Collection[str], kind: EvidenceKind) -> Held:
    """``kind``: the evidence where ``manifest`` speaks for all files."""
    files = tuple(
        file if file.path in unknown else _as_recorded(file, manifest.find(file.path)) for file in held.files
    )  # fmt: skip
    is_all = all(file.blocks is not None for file in files)
    is_recorded = held.is_recorded or kind is EvidenceKind.RECORDED
    return replace(held, files=files, evidence=kind if is_all else held.evidence, is_recorded=is_recorded)


def _as_recorded(file: OfferedFile, listed: ManifestFile | None) -> OfferedFile:
    """A file that is there, with what was recorded of it."""
    if listed is None or file.blocks is not None:
        return file
    known = offered_file(listed)
    return replace(known, git_sha1=known.git_sha1 or file.git_sha1, mtime_ns=file.mtime_ns)


def _with_lost(files: tuple[OfferedFile, ...], manifest: Manifest) -> tuple[OfferedFile, ...]:
    """``files`` and the weights and indexes that are not there: without them it would be another model."""
    there = {file.path for file in files}
    lost = (file for file in manifest.files if is_loaded(file.path) and file.path not in there)
    return tuple(sorted((*files, *map(offered_file, lost)), key=lambda file: file.path))


def _find_unnamed(files: Collection[OfferedFile], manifest: Manifest) -> list[str]:
    """The shards that would be loaded too, where no index says which there are."""
    indexed = {posixpath.dirname(file.path) for file in manifest.files if is_index(file.path)}
    shards = (file.path for file in files if file.path.endswith(SHARD_SUFFIX))
    return [path for path in shards if manifest.find(path) is None and posixpath.dirname(path) not in indexed]
