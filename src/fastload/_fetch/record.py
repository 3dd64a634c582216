"""A manifest of what was proven the long way, so that it need not be proven that way again.

A digest of a whole file is a serial chain; a manifest has one for each block. So the first load that proves a snapshot
on the local tier by the names of its blobs leaves a manifest beside it. What another tool brought stays that tool's:
the manifest's source is ``local``, which nothing evicts.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._read.file import open_regular, read_fully
from fastload._store.admit.publish import write_manifest
from fastload._store.filesystem import make_folder, write_whole
from fastload._verify.digest import BLOCK_BYTES, ContentHash, block_digest
from fastload._verify.manifest import Manifest, ManifestFile, dump_manifest, plain_commit
from fastload._verify.path import OURS
from fastload.errors import FastloadError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._fetch.evidence import Evidence
    from fastload._store.offer import OfferedFile
    from fastload._store.root import Stored

RECORDED = "recorded"
"""The source of a manifest that says what a folder's files were when somebody had them recorded."""
_log = logging.getLogger("fastload")


def record_proof(stored: Stored, evidence: Evidence, proven: Mapping[str, ManifestFile]) -> None:
    """Leave a manifest of ``stored``, whose files ``proven`` a load has just proven whole; the others are read here.

    Whatever keeps it from being written is no error of the load's.
    """
    if stored.tier != "local" or stored.layout is None or stored.commit is None or not proven:
        return
    try:
        files = [_complete(evidence, file, proven) for _, file in sorted(evidence.files.items())]
        make_folder(stored.layout.ours("staging"))
        manifest = Manifest(repo=stored.repo, commit=stored.commit, source="local", files=tuple(files))
        write_manifest(stored.layout, manifest)
    except FastloadError as exc:
        _log.info("%s was proven, but no manifest was left: %s", stored.repo, exc)


def record_all(stored: Stored, evidence: Evidence) -> bool:
    """Write a manifest of all files of ``stored``, read for that; True if there is one now.

    For a plain folder it says ``recorded``: what the files were then, not what they should be.

    Raises:
        IntegrityError: a file is not what is known of it.
        StoreError: it cannot be read, or the manifest cannot be written.
    """
    files = tuple(_complete(evidence, file, {}) for _, file in sorted(evidence.files.items()))
    if not files:
        return False
    if stored.layout is not None and stored.commit is not None:
        make_folder(stored.layout.ours("staging"))
        write_manifest(stored.layout, Manifest(repo=stored.repo, commit=stored.commit, source="local", files=files))
        return True
    ours = os.path.join(stored.folder, OURS)
    commit = plain_commit(files)
    make_folder(os.path.join(ours, "manifests"))
    make_folder(os.path.join(ours, "staging"))
    manifest = Manifest(repo=stored.repo, commit=commit, source=RECORDED, files=files)
    path = os.path.join(ours, "manifests", f"{commit}.json")
    write_whole(path, dump_manifest(manifest), os.path.join(ours, "staging"))
    return True


def _complete(evidence: Evidence, file: OfferedFile, proven: Mapping[str, ManifestFile]) -> ManifestFile:
    done = proven.get(file.path) or digest_file(os.path.join(evidence.folder, file.path), file)
    return done if file.git_sha1 is not None else replace(done, git_sha1=None)


def digest_file(path: str, file: OfferedFile) -> ManifestFile:
    """All digests of the file at ``path``.

    Raises:
        IntegrityError: it is not what is known of it.
        FormatError, StoreError: it cannot be read.
    """
    content, blocks = ContentHash(file.size), []
    buffer = memoryview(bytearray(min(BLOCK_BYTES, file.size)))
    descriptor = open_regular(path)
    try:
        for offset in range(0, file.size, BLOCK_BYTES):
            block = buffer[: min(BLOCK_BYTES, file.size - offset)]
            read_fully(descriptor, offset, [block], path=path)
            content.update(block)
            blocks.append(block_digest(block))
    finally:
        os.close(descriptor)
    for name in ("sha256", "git_sha1"):
        expected, found = getattr(file, name), getattr(content, name)
        if expected is not None and found != expected:
            raise IntegrityError(path, 0, f"{name} {found}", expected, "Its copy there is damaged: fetch it again")
    return ManifestFile(file.path, file.size, content.sha256, content.git_sha1, tuple(blocks))
