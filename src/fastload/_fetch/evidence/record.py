"""A manifest of what was proven the long way, so that it need not be proven that way again.

A digest of a whole file is a serial chain; a manifest has one for each block. So the first load that proves a snapshot
on the local tier by the names of its blobs leaves a manifest beside it. What another tool brought stays that tool's:
the manifest's source is ``local``, which nothing evicts. A load writes nowhere else but to the folder ``manifests``.
"""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from fastload._fetch.evidence.damage import MEND_HINT
from fastload._read.file import open_regular, read_fully, with_blob
from fastload._store.admit.publish import write_manifest
from fastload._store.containment import check_own_folders
from fastload._store.directory import contained, containment_root
from fastload._store.filesystem import make_folder
from fastload._store.folder_manifest import write_folder_manifest
from fastload._store.folder_offer import read_manifest
from fastload._store.folder_stamp import remove_folder_stamps, write_folder_stamp
from fastload._store.listing import list_files
from fastload._store.stored import CachedSnapshot
from fastload._store.wanted import Wish
from fastload._tier import LOCAL
from fastload._verify.digest import SMALL_FILE_BYTES, ContentHash, block_digest, block_length, blocks_of
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.manifest import Manifest, ManifestFile, plain_commit
from fastload._verify.path import PathError, check_path_in_snapshot, is_loaded
from fastload._verify.trust import MADE_HERE, RECORDED, KeptManifest
from fastload.errors import FastloadError, FormatError, NotWritableError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._read.filedigests import Hashing
    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored

_MAX_UNREAD_BYTES = 64 << 20  # 64 MiB
"""What a load reads for the sake of the next one: configs, tokenizers; not the weights that it left out."""
_log = logging.getLogger("fastload")


@dataclass(frozen=True, slots=True)
class Proof:
    """What has been proven whole, by path, and whether what was not may be read: ``take_turn`` waits, or raises."""

    files: Mapping[str, ManifestFile]
    take_turn: Callable[[int], None] = lambda _: None


def record_proof(stored: Stored, evidence: Evidence, proof: Proof, manifests: ManifestFolder | None) -> bool:
    """Leave a manifest of ``stored``, some of whose files a load has just proven; True if the next load finds one.

    Whatever keeps it from being written is no error of the load's.
    """
    if not proof.files or not evidence.may_have_blocks:
        return False
    try:
        return _leave(stored, evidence, proof, manifests)
    except FastloadError as exc:
        _log.info("%s was proven, but no manifest was left: %s", stored.repo, exc)
        return False


def _leave(stored: Stored, evidence: Evidence, proof: Proof, manifests: ManifestFolder | None) -> bool:
    """True if there is one now that serves the next load."""
    if isinstance(stored, CachedSnapshot) and stored.tier == LOCAL and _write_first(stored, evidence, proof):
        return True
    if manifests is not None:
        _keep(stored, evidence, proof, manifests)
    return manifests is not None


def _write_first(stored: CachedSnapshot, evidence: Evidence, proof: Proof) -> bool:
    """A manifest beside the blobs, where there is none; whether one is there that serves the next load.

    Where nobody knows some of what a load goes by, there is none: that it is right, only its owner says. It would not
    serve a load that a signature proves. One that is there says where the bytes came from. What no load reads
    (``original/``, ``*.bin``) stays out of it. It speaks for all the rest: where this load has left much of that out,
    such as other components, there is none, since to read it now might cost more than the load did.
    """
    is_signed = evidence.kind is EvidenceKind.SIGNATURE
    if is_signed or os.path.isfile(stored.layout.manifest(stored.commit)):
        return False
    wanted = {file.path for file in Wish().choose(evidence.files.values())} | proof.files.keys()
    if not all(evidence.files[name].has_digest for name in wanted if is_loaded(name)):
        return False
    if sum(evidence.files[name].size for name in wanted - proof.files.keys()) > _MAX_UNREAD_BYTES:
        return False
    files = tuple(_complete(evidence, evidence.files[name], proof) for name in sorted(wanted))
    try:
        make_folder(stored.layout.ours("staging"))
        write_manifest(stored.layout, Manifest(repo=stored.repo, commit=stored.commit, source=MADE_HERE, files=files))
    except NotWritableError as exc:
        _log.info("%s cannot hold its manifest: %s", stored.repo, exc)
        return False
    return True


def _keep(stored: Stored, evidence: Evidence, proof: Proof, manifests: ManifestFolder) -> None:
    """A manifest apart, of what the load has read and of small files: others may be large, and nobody wanted them.

    What the manifest that was kept so far knows of others stays: one load reads one component, the next another. What
    one beside them says does not come into it: here is only what we or root have found to be so.
    """
    kept = manifests.find(stored)
    known = _list_known(kept, evidence) if isinstance(kept, KeptManifest) else {}
    seen = {
        name: file
        for name, file in evidence.files.items()
        if name in known
        or name in proof.files
        or (_may_be_noted(file) and os.path.isfile(os.path.join(stored.folder, name)))
    }
    whole = Proof({**known, **proof.files}, proof.take_turn)
    files = tuple(_complete(evidence, file, whole) for _, file in sorted(seen.items()))
    manifests.keep(stored, _manifest_of(stored, files), seen.values())


def _may_be_noted(file: OfferedFile) -> bool:
    """True of a small one; but that weights are right which nobody proves, only their owner says."""
    return file.size <= SMALL_FILE_BYTES and (file.has_digest or not is_loaded(file.path))


def _list_known(kept: KeptManifest, evidence: Evidence) -> dict[str, ManifestFile]:
    """What of ``kept`` the load went by: not what was written since, and nothing where it was not believed."""
    files = evidence.files
    return {f.path: f for f in kept.manifest.files if f.path in files and files[f.path].blocks == f.blocks}


def check_names(folder: str, files: Iterable[OfferedFile | ManifestFile]) -> None:
    """Raise ``FormatError`` where a file in ``folder`` is called what no manifest can hold: nobody could read that."""
    for file in files:
        try:
            check_path_in_snapshot(file.path)
        except PathError as exc:
            expected = "a name that a manifest can hold"
            raise FormatError(os.path.join(folder, file.path), str(exc), expected, hint="Rename it") from exc


def _manifest_of(stored: Stored, files: tuple[ManifestFile, ...]) -> Manifest:
    check_names(stored.folder, files)
    if isinstance(stored, CachedSnapshot):
        return Manifest(repo=stored.repo, commit=stored.commit, source=MADE_HERE, files=files)
    return Manifest(repo=stored.repo, commit=plain_commit(files), source=RECORDED, files=files)


def record_all(
    stored: Stored, evidence: Evidence, manifests: ManifestFolder | None, take_turn: Callable[[int], None]
) -> bool:
    """Write a manifest of all files of ``stored``, read for that; True if there is one now.

    Beside them, or in ``manifests`` where that cannot be, or where a signature proves them. For a plain folder it says
    ``recorded``: what the files were then, not what they should be. One in the hub's layout gets what another tool has
    added, and with it the source ``local``: the snapshot is not ours any more, and nothing evicts it.

    Raises:
        IntegrityError: a file is not what is known of it.
        StoreError: it cannot be read, or the manifest cannot be written.
    """
    apart = manifests if evidence.kind is EvidenceKind.SIGNATURE else None
    listed = _find_listed(stored) if apart is None else None
    wanted = {name: file for name, file in evidence.files.items() if listed is None or _is_added(file, listed)}
    if not wanted or not evidence.may_have_blocks:
        return False
    before = _look(stored, wanted)
    files = tuple(_complete(evidence, file, Proof({}, take_turn)) for _, file in sorted(wanted.items()))
    if apart is None:
        whole = files if listed is None else sorted((*listed.files, *files), key=attrgetter("path"))
        apart = _write_beside(stored, _manifest_of(stored, tuple(whole)), before, manifests)
    if apart is not None:
        apart.keep(stored, _manifest_of(stored, files), before)
    return True


def _look(stored: Stored, names: Container[str]) -> tuple[OfferedFile, ...]:
    """What those files look like that ``names`` has; what a manifest knows of them says nothing of mtimes."""
    return tuple(file for file in list_files(stored.folder) if file.path in names)


def _find_listed(stored: Stored) -> Manifest | None:
    """The manifest in the hub's layout; right as far as it goes, it is only added to."""
    return read_manifest(stored.layout, stored.commit) if isinstance(stored, CachedSnapshot) else None


def _is_added(file: OfferedFile, listed: Manifest) -> bool:
    """True if another tool has added it since, and its blob's name proves it."""
    return listed.find(file.path) is None and file.has_digest


def _write_beside(
    stored: Stored, manifest: Manifest, before: Sequence[OfferedFile], manifests: ManifestFolder | None
) -> ManifestFolder | None:
    """Write it; or where it shall go instead, because the snapshot's tier cannot be written."""
    try:
        if isinstance(stored, CachedSnapshot):
            make_folder(stored.layout.ours("staging"))
            write_manifest(stored.layout, manifest)
        else:
            _write_in_folder(stored.folder, manifest, before)
    except NotWritableError as exc:
        if manifests is None:
            hint = "set manifests to a folder that this user may write: --manifests /PATH"
            raise NotWritableError(exc.path, exc.reason, f"{exc.hint}. Or {hint}") from exc
        return manifests
    return None


def _write_in_folder(folder: str, manifest: Manifest, before: Sequence[OfferedFile]) -> None:
    check_own_folders(folder)
    write_folder_stamp(folder, manifest.commit, before)
    write_folder_manifest(folder, manifest)
    remove_folder_stamps(folder, kept=manifest.commit)


def _complete(evidence: Evidence, file: OfferedFile, proof: Proof) -> ManifestFile:
    done = proof.files.get(file.path)
    if done is None:
        path = contained(os.path.join(evidence.folder, file.path), containment_root(evidence.folder))
        done = digest_file(path, file, proof.take_turn)
    return done if file.git_sha1 is not None else replace(done, git_sha1=None)


def digest_file(
    path: str,
    file: OfferedFile,
    take_turn: Callable[[int], None] = lambda _: None,
    hashing: Hashing = nullcontext,
) -> ManifestFile:
    """All digests of the file at ``path``; ``take_turn`` returns when so many bytes may be read, or raises.

    ``hashing()`` is entered while digests are taken.

    Raises:
        IntegrityError: it is not what is known of it.
        FormatError, StoreError: it cannot be read.
    """
    content, blocks = ContentHash(file.size, file), []
    buffer = memoryview(bytearray(block_length(0, file.size)))
    descriptor = open_regular(path)
    try:
        for _, offset, length in blocks_of(file.size):
            block = buffer[:length]
            take_turn(length)
            read_fully(descriptor, offset, [block], path=path)
            with hashing():
                content.update(block)
                blocks.append(block_digest(block))
    finally:
        os.close(descriptor)
    difference = content.find_difference(file)
    if difference is not None:
        raise difference.as_error(path, with_blob(path, MEND_HINT))
    return ManifestFile(file.path, file.size, content.sha256, content.git_sha1, tuple(blocks))
