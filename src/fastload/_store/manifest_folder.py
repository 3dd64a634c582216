"""Manifests kept apart from the files they are of: the setting ``manifests``, for what cannot hold its own.

::

    <manifests>/<uid>/<BLAKE3 of the snapshot's path>.json         the manifest
    <manifests>/<uid>/<BLAKE3 of the snapshot's path>.stamp.json   which manifest, of which folder, and the size and
                                                                   mtime that each file had before it was read

A block digest is as good as the word of whoever wrote it: one manifest with the right sha256 and the wrong blocks would
prove wrong bytes. So what others may have written is passed over, and each user writes into a folder of its own, which
is safe in a volume that a group shares (fsGroup), too. Root's word counts for all.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from fastload._read.file import read_small_file
from fastload._store.filesystem import make_folder, writing
from fastload._store.note import read_note
from fastload._store.replacing import replacing
from fastload._store.stored import PlainFolder
from fastload._verify import trust
from fastload._verify.manifest import MAX_MANIFEST_BYTES, dump_manifest, parse_manifest, plain_commit
from fastload._verify.trust import KeptManifest, PassedOver
from fastload.errors import FormatError, NotWritableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored
    from fastload._verify.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ManifestFolder:
    """Where they are kept."""

    path: str

    def find(self, stored: Stored) -> KeptManifest | PassedOver | None:
        """The manifest of ``stored``, by us or by root.

        Raises:
            FormatError, StoreError: it is malformed or cannot be read.
        """
        passed_over = None
        for uid in dict.fromkeys((os.geteuid(), 0)):
            path = self._place(uid, stored)
            if not os.path.lexists(path):
                continue
            distrusted = self._find_passed_over(os.path.dirname(path), path, _stamp_of(path))
            kept = _read(path, stored) if distrusted is None else None
            if kept is not None:
                return kept
            passed_over = passed_over or distrusted
        return passed_over

    def keep(self, stored: Stored, manifest: Manifest, files: Iterable[OfferedFile]) -> None:
        """Keep ``manifest``, of ``files`` as they were before they were read.

        Raises:
            FormatError: no manifest can hold the name of its folder.
            StoreError: it cannot be written.
        """
        path = self._place(os.geteuid(), stored)
        content = dump_manifest(manifest)
        make_own_folder(os.path.dirname(path))
        stamp = {
            "schema": 1,
            "folder": _real(stored),
            "manifest": blake3(content).hexdigest(),
            "files": {file.path: [file.size, file.mtime_ns] for file in files},
        }
        write_own(_stamp_of(path), json.dumps(stamp, sort_keys=True).encode("utf-8"), os.path.dirname(path))
        write_own(path, content, os.path.dirname(path))

    def _find_passed_over(self, *paths: str) -> PassedOver | None:
        distrusts = ((path, find_distrust(path)) for path in paths if os.path.lexists(path))
        for path, distrust in distrusts:
            if distrust is not None:  # a new one is written into our own folder, also where this one is root's
                return PassedOver(path, distrust, find_cure(os.path.join(self.path, str(os.geteuid()))))
        return None

    def _place(self, uid: int, stored: Stored) -> str:
        name = blake3(os.fsencode(_real(stored))).hexdigest()
        return os.path.join(self.path, str(uid), f"{name}.json")


def _real(stored: Stored) -> str:
    return os.path.realpath(stored.folder)


def _stamp_of(path: str) -> str:
    return f"{path.removesuffix('.json')}.stamp.json"


def _read(path: str, stored: Stored) -> KeptManifest | None:
    """None where it is of something else, or its stamp is of another manifest: one was being replaced."""
    raw = read_own(path, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(raw, path=path)
    commit = plain_commit(manifest.files) if isinstance(stored, PlainFolder) else stored.commit
    stamp = _read_stamp(_stamp_of(path))
    expected = (_real(stored), blake3(raw).hexdigest())
    if manifest.commit != commit or (stamp.get("folder"), stamp.get("manifest")) != expected:
        return None
    noted = stamp.get("files")
    return KeptManifest(path, manifest, noted if isinstance(noted, dict) else {})


def _read_stamp(path: str) -> dict[str, Any]:
    return (read_own_note(path) or {}) if is_ours_alone(path) else {}


def read_own(path: str, max_bytes: int) -> bytes:
    """All of the file at ``path``, which nobody but us and root can have written.

    In a folder that a group shares, ours may have been swapped for another one since it was looked at.

    Raises:
        FormatError, StoreError: as :func:`~fastload._read.file.read_small_file`; also where others may have written it.
    """
    return read_small_file(path, max_bytes, look=partial(_check_ours, path))


def read_own_note(path: str) -> dict[str, Any] | None:
    """As :func:`~fastload._store.note.read_note`, of a file that nobody but us and root can have written."""
    return read_note(path, look=partial(_check_ours, path))


def _check_ours(path: str, status: os.stat_result) -> None:
    distrust = trust.find_distrust((status.st_mode, status.st_uid), os.geteuid())
    if distrust is not None:
        hint = "Somebody has put it there meanwhile: see who may write to the folders above it"
        raise FormatError(path, f"what {distrust}", "what only this user, or root, may write", hint=hint)


def is_ours_alone(path: str) -> bool:
    """True if ``path`` is there and no link, and nobody but us and root can have written it."""
    return find_distrust(path) is None


def find_distrust(path: str) -> str | None:
    """Why others than us and root may have written what is at ``path``; None: they cannot."""
    try:
        status = os.lstat(path)
    except OSError as exc:  # what cannot be looked at proves nothing
        return f"cannot be looked at ({exc.strerror or exc})"
    return trust.find_distrust((status.st_mode, status.st_uid), os.geteuid())


def find_cure(*folders: str) -> str:
    """What has to be done before our word counts in each of ``folders``; of one that is not there, nothing."""
    return trust.find_cure(_look(folders), os.geteuid())


def _look(folders: Iterable[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    for folder in folders:
        with suppress(OSError):
            status = os.lstat(folder)
            yield folder, (status.st_mode, status.st_uid)


def make_own_folder(path: str) -> None:
    """Make ``path`` and what is above it; nobody else may write to it, whatever the umask says.

    Raises:
        NotWritableError: others may write to what is there, so that nobody would believe what we write.
        StoreError: as :func:`~fastload._store.filesystem.writing` says.
    """
    if not os.path.lexists(path):
        make_folder(path)
        with writing(path):
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~trust.OTHERS_MAY_WRITE)
    distrust = find_distrust(path)
    if distrust is not None:
        hint = f"First: {find_cure(path)}; then run it again"
        raise NotWritableError(path, f"{distrust}: no manifest in it would be believed", hint)


def write_own(path: str, content: bytes, scratch: str) -> None:
    """As :func:`~fastload._store.replacing.write_whole`; nobody else may write to it, whatever the umask says.

    Raises:
        StoreError: as :func:`~fastload._store.filesystem.writing` says.
    """
    with replacing(path, scratch, is_unnamed=True) as file:  # there is nobody who would sweep it in time
        os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~trust.OTHERS_MAY_WRITE)
        file.write(content)
