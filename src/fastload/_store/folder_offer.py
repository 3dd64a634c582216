"""What a stored snapshot can give: its files, and all that its tier knows of their content."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from fastload._cpus import count_cpus
from fastload._read.choose import choose_reader
from fastload._read.dropping import DroppingReader
from fastload._read.file import identify, read_small_file, translate
from fastload._read.pread import BufferedReader
from fastload._read.reader import PlainFile
from fastload._store.admit.stamp import read_chosen
from fastload._store.belonging import check_is_of
from fastload._store.directory import contained, containment_root
from fastload._store.folder_record import RECORD_AGAIN, UNNAMED
from fastload._store.held import Held, hold, offered_file
from fastload._store.linked import with_blob_name
from fastload._store.listing import is_rewritten, list_files, read_download, read_tree
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._store.wanted import is_weight
from fastload._verify.evidence_kind import EvidenceKind
from fastload._verify.manifest import MAX_MANIFEST_BYTES, parse_manifest
from fastload._verify.path import PathError, check_path_in_snapshot
from fastload._verify.trust import MADE_HERE, find_contradicting
from fastload.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from fastload._read.reader import Reader
    from fastload._store.admit.stamp import Chosen
    from fastload._store.layout import RepoLayout
    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored
    from fastload._store.wanted import Wish
    from fastload._tier import Tier
    from fastload._verify.manifest import Manifest

_DEPTHS = range(8, 17)
"""Four threads a CPU: one digests, one reads, and two wait for the disk to take what they write."""
_COLD = 0.01
_MAX_GIT_BYTES = 10 << 20  # 10 MiB
"""The hub takes no larger file but by a pointer to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOffer:
    """See :class:`~fastload._store.offer.Offer`."""

    tier: Tier
    repo: str
    commit: str | None
    evidence: EvidenceKind
    folder: str
    files: tuple[OfferedFile, ...]
    unlisted: tuple[OfferedFile, ...] = ()
    """What is there too, though the manifest does not name it: what another tool has added."""
    misnamed: tuple[OfferedFile, ...] = ()
    """What is there, by the name of a blob that is not the one of which the manifest speaks."""
    as_found: frozenset[str] = frozenset()
    """Files that the manifest names by what they held when it was made here, since no name of a blob says it."""
    named: tuple[OfferedFile, ...] | None = None
    """All files of the commit, where a listing of the hub's names them."""
    chosen: Chosen | None = None
    """Why just these files are there; None: they are all there is, as in a plain folder."""
    unnamed: frozenset[str] = frozenset()
    """Shards that a manifest beside them does not name: they make it another model, which nobody has recorded."""
    may_be_meant: bool = False
    """True if files are held to what they were when somebody had them recorded: he may have them recorded again."""
    depth: int = field(default_factory=lambda: min(max(4 * count_cpus().usable, _DEPTHS[0]), _DEPTHS[-1]))

    def lacks(self, wish: Wish) -> bool:
        """See :class:`~fastload._store.offer.Offer`."""
        there = {file.path for file in self.files}
        if self.named is not None:
            return wish.chooses_beyond(there, self.named)
        return self.chosen is not None and not self.chosen.meets(wish, there, must_be_sure=True)

    def open(self, file: OfferedFile) -> Reader:
        """See :class:`~fastload._store.offer.Offer`; a file that has changed since is an ``IntegrityError``."""
        path = os.path.join(self.folder, file.path)
        if file.path in self.unnamed:
            self._refuse(path, UNNAMED.found, UNNAMED.expected, "Remove it, if it does not belong there")
        if file.blocks is not None and not os.path.exists(path):
            expected = f"{file.size:,} bytes, as its manifest says"
            self._refuse(path, "no file", expected, "Bring it back")
        path = contained(path, containment_root(self.folder))
        try:
            identity = identify(os.stat(path))
        except OSError as exc:
            raise translate(path, exc) from exc
        if file.blocks is not None and identity.size != file.size:
            expected = f"{file.size:,} bytes, as its manifest says"
            raise IntegrityError(path, 0, f"{identity.size:,} bytes", expected, "Fetch it from another tier")
        if identity.size != file.size or (file.mtime_ns is not None and identity.mtime_ns != file.mtime_ns):
            hint = "Somebody writes to it: try again when that is over"
            raise IntegrityError(path, 0, f"{identity.size:,} bytes, or a new mtime", f"{file.size:,}, no change", hint)
        plain = PlainFile(path, identity)
        choice = choose_reader(plain, "auto")
        reader = choice.open(plain)
        is_cold = choice.cached is not None and choice.cached < _COLD
        return DroppingReader(reader, plain) if choice.open is BufferedReader and is_cold else reader

    def _refuse(self, path: str, found: str, expected: str, cure: str) -> NoReturn:
        """Other files than the manifest says: who has had them recorded may have meant it."""
        hint = f"{cure}; {RECORD_AGAIN}" if self.may_be_meant else "Fetch it from another tier"
        raise IntegrityError(path, 0, found, expected, hint)


def offer_stored(stored: Stored, manifests: ManifestFolder | None = None) -> FolderOffer:
    """What ``stored`` can give; ``manifests`` is where a manifest of it may be kept apart.

    Raises:
        FormatError: its manifest is malformed, or a file has a name that cannot be taken over.
        StoreError: it cannot be read.
    """
    manifest = read_manifest(stored.layout, stored.commit) if isinstance(stored, CachedSnapshot) else None
    named = _read_listing(stored)
    listed = {file.path: file for file in named or ()} if manifest is None else {}
    files = tuple(_as_listed(file, listed.get(file.path)) for file in list_named(stored))
    unlisted: tuple[OfferedFile, ...] = ()
    misnamed: tuple[OfferedFile, ...] = ()
    as_found: frozenset[str] = frozenset()
    if manifest is not None:
        if manifest.source == MADE_HERE:
            as_found = frozenset(file.path for file in files if not file.has_digest)
        contradicting = find_contradicting(files, manifest)
        misnamed = tuple(file for file in files if file.path in contradicting)
        unlisted = tuple(file for file in files if manifest.find(file.path) is None)
        held = Held(tuple(map(offered_file, manifest.files)), EvidenceKind.MANIFEST)
    else:
        held = hold(stored, files, stored.named_by, manifests)
    for file in held.files:
        _check_path(stored.folder, file.path)
    return FolderOffer(
        tier=stored.tier,
        repo=stored.repo,
        commit=stored.commit,
        evidence=held.evidence,
        folder=stored.folder,
        files=held.files,
        unlisted=unlisted,
        misnamed=misnamed,
        as_found=as_found,
        named=named,
        chosen=_read_chosen(stored),
        unnamed=held.unnamed,
        may_be_meant=held.may_be_meant,
    )


def read_manifest(layout: RepoLayout, commit: str) -> Manifest | None:
    """The manifest of a commit; None where there is none.

    Raises:
        FormatError, StoreError: it is malformed, of another commit or repo, or cannot be read.
    """
    path = layout.manifest(commit)
    manifest = read_manifest_file(path)
    if manifest is not None:
        check_is_of(manifest, layout, commit, path)
    return manifest


def read_manifest_file(path: str) -> Manifest | None:
    """The manifest at ``path``; None where there is none.

    Raises:
        FormatError, StoreError: it is malformed or cannot be read.
    """
    if not os.path.isfile(path):
        return None
    return parse_manifest(read_small_file(path, MAX_MANIFEST_BYTES), path=path)


def list_named(stored: Stored) -> tuple[OfferedFile, ...]:
    """The files that are there, with the digests that the tier itself names them by.

    Raises:
        StoreError: it cannot be read.
    """
    return tuple(_with_name(stored, file) for file in list_files(stored.folder))


def _read_listing(stored: Stored) -> tuple[OfferedFile, ...] | None:
    """What the hub's client has noted of the commit, if it has."""
    if isinstance(stored, PlainFolder):
        return None
    return read_tree(stored.layout.tree(stored.commit))


def _read_chosen(stored: Stored) -> Chosen | None:
    if isinstance(stored, PlainFolder):
        return None
    return read_chosen(stored.layout.stamp(stored.commit))


def _as_listed(file: OfferedFile, listed: OfferedFile | None) -> OfferedFile:
    """A link says which blob somebody chose, the hub's listing which one belongs to the commit.

    Of one algorithm only: of a large file some listings have nothing but the git-sha1 of the pointer to it. So of a
    real file, whose algorithm no name tells, it counts only where that is no weight and no larger than what git holds.
    """
    if listed is None:
        return file
    if listed.sha256 is not None and file.git_sha1 is None:
        return replace(file, sha256=listed.sha256)
    may_be_in_git = not file.has_digest and not is_weight(file.path) and file.size <= _MAX_GIT_BYTES
    is_in_git = file.git_sha1 is not None or may_be_in_git
    if listed.git_sha1 is not None and is_in_git:
        return replace(file, git_sha1=listed.git_sha1)
    return file


def _with_name(stored: Stored, file: OfferedFile) -> OfferedFile:
    """With the digest that the tier itself names it by."""
    if isinstance(stored, CachedSnapshot):
        return _as_blob(stored.folder, file)
    known = read_download(stored.folder, file)
    return file if known is None or is_outdated_download(stored, file) else known[1]


def is_outdated_download(stored: Stored, file: OfferedFile) -> bool:
    """True if the note of its download is of another file; what stands for a commit is held to it all the same."""
    return isinstance(stored, PlainFolder) and stored.commit is None and is_rewritten(stored.folder, file)


def _as_blob(folder: str, file: OfferedFile) -> OfferedFile:
    """With the digest that its blob is called by; a file of a finished snapshot does not change in place."""
    known = with_blob_name(folder, file)
    return known if known is file else replace(known, mtime_ns=None)


def _check_path(folder: str, path: str) -> None:
    try:
        check_path_in_snapshot(path)
    except PathError as exc:
        raise FormatError(os.path.join(folder, path), str(exc), "a plain name", hint="Rename it") from exc
