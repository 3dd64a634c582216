"""Folders as lists of files, and the listings that other tools left beside them.

Two kinds are read: ``trees/<commit>.json`` of huggingface_hub 2.4, which names every file of a commit, and the
``.cache/huggingface/download/<path>.metadata`` of ``hf download --local-dir``, which names the commit and the etag of
one file. Both are evidence, and as such parsed with suspicion: one that is odd counts as not there.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastload._format.select import is_remnant
from fastload._read.file import read_small_file, translate
from fastload._store.containment import leads_out
from fastload._store.note import read_note
from fastload._store.offer import OfferedFile
from fastload._store.ref import is_commit
from fastload._verify.path import OURS
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_METADATA_BYTES = 4096
_MAX_DEPTH = 16
_COARSE_S = 1.0
DOWNLOADS = ".cache/huggingface/download"
"""Where ``hf download --local-dir`` keeps its notes, in the folder itself."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})
_NOT_CONTENT = frozenset({OURS, ".cache", ".git", ".locks"})


def list_files(folder: str) -> tuple[OfferedFile, ...]:
    """All files below ``folder``, links followed, sorted by path; but not what other tools keep there for themselves.

    Raises:
        StoreError: it cannot be read.
    """
    return tuple(sorted(_list_regular(folder), key=lambda file: file.path))


def list_paths(folder: str) -> tuple[str, ...]:
    """All names below ``folder``, sorted, where :func:`list_files` looks: also those of what is no regular file.

    Raises:
        StoreError: it cannot be read.
    """
    return tuple(sorted(path for path, _ in _walk(folder, "", _MAX_DEPTH)))


def is_content(path: str) -> bool:
    """False of what :func:`list_files` never names: it lies where other tools keep something for themselves."""
    *folders, _ = parts = path.split("/")
    is_within_reach = len(folders) <= _MAX_DEPTH and _NOT_CONTENT.isdisjoint(folders)
    return is_within_reach and not any(map(is_remnant, parts))


def _list_regular(folder: str) -> Iterator[OfferedFile]:
    for path, entry in _walk(folder, "", _MAX_DEPTH):
        if entry.is_dir(follow_symlinks=False):
            continue
        try:
            status = entry.stat()
        except OSError as exc:
            if exc.errno in _NOWHERE:
                continue  # a link that dangles: not there, and whoever needs it will say so
            raise translate(entry.path, exc) from exc  # left out, a shard would be missing from what is brought
        if stat.S_ISREG(status.st_mode):
            mtime_ns, ctime_ns = status.st_mtime_ns, status.st_ctime_ns
            yield OfferedFile(path=path, size=status.st_size, mtime_ns=mtime_ns, ctime_ns=ctime_ns)


def _walk(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, os.DirEntry[str]]]:
    try:
        with os.scandir(os.path.join(folder, prefix)) as entries:
            found = list(entries)
    except OSError as exc:
        raise translate(os.path.join(folder, prefix), exc) from exc
    for entry in found:
        if is_remnant(entry.name):
            continue
        path = f"{prefix}{entry.name}"
        yield path, entry
        if depth and entry.is_dir(follow_symlinks=False) and entry.name not in _NOT_CONTENT:
            yield from _walk(folder, f"{path}/", depth - 1)


def read_tree(path: str) -> tuple[OfferedFile, ...] | None:
    """The files that a cached tree listing of the hub client names; None where there is none that can be believed."""
    document = read_note(path) or {}
    files = document.get("files")
    if document.get("format_version") != 1 or not isinstance(files, dict):
        return None
    parsed = [_parse_entry(name, entry) for name, entry in sorted(files.items())]
    return tuple(file for file in parsed if file is not None) if all(parsed) else None


def _parse_entry(name: str, entry: Any) -> OfferedFile | None:
    if not isinstance(entry, dict):
        return None
    sha256, size = entry.get("lfs_sha256"), entry.get("lfs_size") or entry.get("size")
    if type(size) is not int or size < 0:
        return None
    if isinstance(sha256, str):
        return OfferedFile(path=name, size=size, sha256=sha256) if _SHA256.fullmatch(sha256) else None
    sha1 = entry.get("blob_id")
    if not isinstance(sha1, str) or not _SHA1.fullmatch(sha1):
        return None
    return OfferedFile(path=name, size=size, git_sha1=sha1)


def read_download(folder: str, file: OfferedFile) -> tuple[str, OfferedFile] | None:
    """What ``hf download --local-dir`` noted of ``file``: its commit, and the file with the digest that is its etag."""
    path = os.path.join(folder, DOWNLOADS, f"{file.path}.metadata")
    if not os.path.isfile(path) or leads_out(path, folder):
        return None
    try:
        lines = read_small_file(path, _MAX_METADATA_BYTES).decode("ascii").splitlines()
    except (FormatError, StoreError, UnicodeDecodeError):
        return None
    if len(lines) < 2 or not is_commit(lines[0]):  # noqa: PLR2004 - the commit and the etag
        return None
    return lines[0], with_digest(file, lines[1])


def is_rewritten(folder: str, file: OfferedFile) -> bool:
    """True if ``file`` was written after ``hf download --local-dir`` noted it: its etag is of another file.

    As the hub's client tells it, a second being allowed for coarse times. Where the note itself is later than it says,
    the folder was copied, and times tell nothing.
    """
    path = os.path.join(folder, DOWNLOADS, f"{file.path}.metadata")
    try:
        noted_s = float(read_small_file(path, _MAX_METADATA_BYTES).splitlines()[2])
        is_copy = os.stat(path).st_mtime - _COARSE_S > noted_s
    except (FormatError, StoreError, OSError, ValueError, IndexError):  # it says of no time
        return False
    return not is_copy and file.mtime_ns is not None and file.mtime_ns / 1e9 - _COARSE_S > noted_s


def with_digest(file: OfferedFile, name: str) -> OfferedFile:
    """``file`` with the digest that ``name``, an etag or the name of a blob, is; where it is none, ``file`` itself."""
    if _SHA256.fullmatch(name):
        return replace(file, sha256=name)
    return replace(file, git_sha1=name) if _SHA1.fullmatch(name) else file


def find_unfinished(folder: str) -> str | None:
    """The name of a download below a plain ``folder`` that was not finished, if there is one."""
    top = os.path.join(folder, DOWNLOADS)
    if leads_out(top, folder):
        return None
    for _, _, names in os.walk(top):
        for name in names:
            if name.endswith(".incomplete"):
                return name
    return None
