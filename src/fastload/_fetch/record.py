"""A manifest of what was proven the long way, so that it need not be proven that way again.

A digest of a whole file is a serial chain; a manifest has one for each block. So the first load that proves a snapshot
on the local tier by the names of its blobs leaves a manifest beside it. What another tool brought stays that tool's:
the manifest's source is ``local``, which nothing evicts. A load writes nowhere else but to the folder ``manifests``.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._fetch.damage import MEND_HINT, compare
from fastload._fetch.recorded import SOURCE
from fastload._read.file import open_regular, read_fully, with_blob
from fastload._store.admit.publish import write_manifest
from fastload._store.directory import contained, containment_root
from fastload._store.filesystem import make_folder
from fastload._store.folder_manifest import write_folder_manifest
from fastload._store.folder_offer import MADE_HERE
from fastload._store.folder_stamp import remove_folder_stamps, write_folder_stamp
from fastload._store.listing import list_files
from fastload._store.wanted import Wish
from fastload._verify.digest import BLOCK_BYTES, SMALL_FILE_BYTES, ContentHash, block_digest
from fastload._verify.manifest import Manifest, ManifestFile, plain_commit
from fastload.errors import FastloadError, IntegrityError, NotWritableError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from fastload._fetch.evidence import Evidence
    from fastload._store.layout import RepoLayout
    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import OfferedFile
    from fastload._store.root import Stored

_log = logging.getLogger("fastload")


@dataclass(frozen=True, slots=True)
class Proof:
    """What has been proven whole, by path, and whether what was not may be read: ``take_turn`` waits, or raises."""

    files: Mapping[str, ManifestFile]
    take_turn: Callable[[int], None] = lambda _: None


def record_proof(stored: Stored, evidence: Evidence, proof: Proof, manifests: ManifestFolder | None) -> bool:
    """Leave a manifest of ``stored``, some of whose files a load has just proven; True if there is one now.

    Whatever keeps it from being written is no error of the load's.
    """
    if not proof.files or not evidence.may_have_blocks:
        return False
    try:
        if (
            stored.tier == "local"
            and stored.layout is not None
            and _write_first(stored.layout, stored, evidence, proof)
        ):
            return True
        if manifests is None:
            return False
        _keep(stored, evidence, proof, manifests)
    except FastloadError as exc:
        _log.info("%s was proven, but no manifest was left: %s", stored.repo, exc)
        return False
    return True


def _write_first(layout: RepoLayout, stored: Stored, evidence: Evidence, proof: Proof) -> bool:
    """A manifest beside the blobs, where there is none; whether one is there that serves the next load.

    It would not serve a load that a signature proves. One that is there says where the bytes came from. What no load
    reads (``original/``, ``*.bin``) stays out of it: to read that now might cost more than the load did.
    """
    if stored.commit is None or evidence.kind == "signature" or os.path.isfile(layout.manifest(stored.commit)):
        return False
    wanted = {file.path for file in Wish().choose(evidence.files.values())} | proof.files.keys()
    files = tuple(_complete(evidence, evidence.files[name], proof) for name in sorted(wanted))
    try:
        make_folder(layout.ours("staging"))
        write_manifest(layout, Manifest(repo=stored.repo, commit=stored.commit, source=MADE_HERE, files=files))
    except NotWritableError as exc:
        _log.info("%s cannot hold its manifest: %s", stored.repo, exc)
        return False
    return True


def _keep(stored: Stored, evidence: Evidence, proof: Proof, manifests: ManifestFolder) -> None:
    """A manifest apart, of what the load has read and of small files: others may be large, and nobody wanted them.

    What the manifest that was kept so far knows of others stays: one load reads one component, the next another.
    """
    known = {name: kept for name, file in evidence.files.items() if (kept := _as_kept(file)) is not None}
    seen = {
        name: file
        for name, file in evidence.files.items()
        if name in known
        or name in proof.files
        or (file.size <= SMALL_FILE_BYTES and os.path.isfile(os.path.join(stored.folder, name)))
    }
    whole = Proof({**known, **proof.files}, proof.take_turn)
    files = tuple(_complete(evidence, file, whole) for _, file in sorted(seen.items()))
    manifests.keep(stored, _manifest_of(stored, files), seen.values())


def _as_kept(file: OfferedFile) -> ManifestFile | None:
    """What a manifest knows of it already."""
    if file.blocks is None or file.sha256 is None:
        return None
    return ManifestFile(file.path, file.size, file.sha256, file.git_sha1, file.blocks)


def _manifest_of(stored: Stored, files: tuple[ManifestFile, ...]) -> Manifest:
    if stored.layout is not None and stored.commit is not None:
        return Manifest(repo=stored.repo, commit=stored.commit, source=MADE_HERE, files=files)
    return Manifest(repo=stored.repo, commit=plain_commit(files), source=SOURCE, files=files)


def record_all(
    stored: Stored, evidence: Evidence, manifests: ManifestFolder | None, take_turn: Callable[[int], None]
) -> bool:
    """Write a manifest of all files of ``stored``, read for that; True if there is one now.

    Beside them, or in ``manifests`` where that cannot be, or where a signature proves them. For a plain folder it says
    ``recorded``: what the files were then, not what they should be.

    Raises:
        IntegrityError: a file is not what is known of it.
        StoreError: it cannot be read, or the manifest cannot be written.
    """
    apart = manifests if evidence.kind == "signature" else None
    if not evidence.files or not evidence.may_have_blocks or (apart is None and _has_manifest(stored)):
        return False
    before = _look(stored, evidence.files)
    files = tuple(_complete(evidence, file, Proof({}, take_turn)) for _, file in sorted(evidence.files.items()))
    manifest = _manifest_of(stored, files)
    if apart is None:
        apart = _write_beside(stored, manifest, before, manifests)
    if apart is not None:
        apart.keep(stored, manifest, before)
    return True


def _look(stored: Stored, names: Container[str]) -> tuple[OfferedFile, ...]:
    """What those files look like that ``names`` has; what a manifest knows of them says nothing of mtimes."""
    return tuple(file for file in list_files(stored.folder) if file.path in names)


def _has_manifest(stored: Stored) -> bool:
    """In the hub's layout; one that does not name what another tool has added is right as far as it goes."""
    layout, commit = stored.layout, stored.commit
    return layout is not None and commit is not None and os.path.isfile(layout.manifest(commit))


def _write_beside(
    stored: Stored, manifest: Manifest, before: Sequence[OfferedFile], manifests: ManifestFolder | None
) -> ManifestFolder | None:
    """Write it; or where it shall go instead, because the snapshot's tier cannot be written."""
    try:
        if stored.layout is not None and stored.commit is not None:
            make_folder(stored.layout.ours("staging"))
            write_manifest(stored.layout, manifest)
        else:
            _write_in_folder(stored.folder, manifest, before)
    except NotWritableError as exc:
        if manifests is None:
            hint = "Set manifests to a folder that this user may write: --manifests /PATH"
            raise NotWritableError(exc.path, exc.reason, hint) from exc
        return manifests
    return None


def _write_in_folder(folder: str, manifest: Manifest, before: Sequence[OfferedFile]) -> None:
    write_folder_stamp(folder, manifest.commit, before)
    write_folder_manifest(folder, manifest)
    remove_folder_stamps(folder, kept=manifest.commit)


def _complete(evidence: Evidence, file: OfferedFile, proof: Proof) -> ManifestFile:
    done = proof.files.get(file.path)
    if done is None:
        path = contained(os.path.join(evidence.folder, file.path), containment_root(evidence.folder))
        done = digest_file(path, file, proof.take_turn)
    return done if file.git_sha1 is not None else replace(done, git_sha1=None)


def digest_file(path: str, file: OfferedFile, take_turn: Callable[[int], None] = lambda _: None) -> ManifestFile:
    """All digests of the file at ``path``; ``take_turn`` returns when so many bytes may be read, or raises.

    Raises:
        IntegrityError: it is not what is known of it.
        FormatError, StoreError: it cannot be read.
    """
    content, blocks = ContentHash(file.size, file.signed), []
    buffer = memoryview(bytearray(min(BLOCK_BYTES, file.size)))
    descriptor = open_regular(path)
    try:
        for offset in range(0, file.size, BLOCK_BYTES):
            block = buffer[: min(BLOCK_BYTES, file.size - offset)]
            take_turn(len(block))
            read_fully(descriptor, offset, [block], path=path)
            content.update(block)
            blocks.append(block_digest(block))
    finally:
        os.close(descriptor)
    difference = compare(file, content)
    if difference is not None:
        raise IntegrityError(path, 0, *difference, with_blob(path, MEND_HINT))
    return ManifestFile(file.path, file.size, content.sha256, content.git_sha1, tuple(blocks))
