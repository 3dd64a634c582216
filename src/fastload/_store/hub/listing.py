"""What the hub says of a repository, parsed: the commit of a revision, the files of a commit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fastload._store.offer import OfferedFile
from fastload._store.ref import is_commit
from fastload._verify.path import PathError, check_path_in_snapshot, check_paths_fit
from fastload.errors import FormatError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHA1 = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r'<(?P<url>[^<>]+)>\s*;\s*rel="?next"?')
_MAX_FILE_BYTES = 1 << 44  # 16 TiB: larger than any file there is, and its list of blocks still fits memory
_HINT = "Do not use this repository, or this mirror: what it lists cannot be a commit"


def parse_commit(info: Any) -> str | None:
    """The commit in the hub's description of a revision; None where it names none."""
    commit = info.get("sha") if isinstance(info, dict) else None
    return commit if isinstance(commit, str) and is_commit(commit) else None


def parse_next_page(link: str) -> str | None:
    """The address in a ``Link`` header of the page that follows, if one does."""
    match = _NEXT.search(link)
    return match["url"] if match else None


def parse_tree(entries: Iterable[Any], place: str) -> tuple[OfferedFile, ...]:
    """The files that a listing names, sorted by path.

    Args:
        entries: of all pages: files and folders.
        place: what an error names, ``org/name@commit``.

    Raises:
        FormatError: an entry is not what it should be, or a path leads out of its folder, or to another file.
    """
    files: list[OfferedFile] = []
    for entry in entries:
        kind = entry.get("type") if isinstance(entry, dict) else None
        if kind == "directory":
            continue
        file = _parse_file(entry) if kind == "file" else None
        if file is None:
            raise FormatError(place, f"{quoted(repr(entry))} in its listing", "a file or a folder", hint=_HINT)
        files.append(file)
    files.sort(key=lambda file: file.path)
    try:
        for file in files:
            check_path_in_snapshot(file.path)
        check_paths_fit([file.path for file in files])
    except PathError as exc:
        raise FormatError(place, f"{exc} in its listing", "paths that can be files of one folder", hint=_HINT) from exc
    return tuple(files)


def _parse_file(entry: dict[str, Any]) -> OfferedFile | None:
    path, lfs = entry.get("path"), entry.get("lfs")
    # What git holds of a large file is a pointer; its size and digest are beside.
    where = lfs if isinstance(lfs, dict) else entry
    size, digest = where.get("size"), where.get("oid")
    if not isinstance(path, str) or type(size) is not int or not 0 <= size < _MAX_FILE_BYTES:
        return None
    if not isinstance(digest, str) or not (_SHA1 if where is entry else _SHA256).fullmatch(digest):
        return None
    if where is entry:
        return OfferedFile(path=path, size=size, git_sha1=digest)
    return OfferedFile(path=path, size=size, sha256=digest)
