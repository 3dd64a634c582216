"""Stamps: what published files and their sources looked like, so that a look tells whether they still do.

``.fastload/stamps/<commit>.json`` is ours alone and never evidence: it saves reading, it does not prove bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastload._format.header import parse_object
from fastload._read.file import identify, read_small_file
from fastload._store.filesystem import make_folder, write_whole
from fastload._store.wanted import Wish
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastload._store.offer import OfferedFile

_MAX_STAMP_BYTES = 64 << 20  # 64 MiB


@dataclass(frozen=True, slots=True)
class Published:
    """What was published, where each file is now, and why just these files."""

    files: tuple[tuple[OfferedFile, str], ...]
    chosen: Chosen


@dataclass(frozen=True, slots=True)
class Chosen:
    """Why just these files of a commit are there."""

    wish: Wish
    is_sure: bool = True
    """False: they came from a copy that may have lacked some of it, since nobody else could be asked."""

    def meets(self, wish: Wish, paths: Iterable[str], *, must_be_sure: bool) -> bool:
        """True if these files, ``paths``, are all that ``wish`` would choose of the commit."""
        return (self.is_sure or not must_be_sure) and wish.is_met_by(self.wish, paths)


def write_stamp(path: str, published: Published, scratch: str) -> None:
    """Note at ``path`` what the files look like, and did where they came from, and by which wish they were chosen.

    Raises:
        StoreError: it cannot be written.
    """
    document = {}
    for file, place in published.files:
        identity = identify(os.stat(place))
        document[file.path] = {**identity._asdict(), "source": [file.size, file.mtime_ns]}
    make_folder(os.path.dirname(path))
    chosen = published.chosen
    wish: dict[str, object] = {"include": chosen.wish.include, "exclude": chosen.wish.exclude}
    if not chosen.is_sure:
        wish["sure"] = False
    content = json.dumps({"schema": 1, "files": document, "wish": wish}, sort_keys=True).encode("utf-8")
    write_whole(path, content, scratch)


def source_is_unchanged(path: str, files: Iterable[OfferedFile]) -> bool:
    """True if ``files`` are those of the stamp at ``path``, each with the size and mtime it had where it came from."""
    entries = _read(path, "files").items()
    noted = {name: entry.get("source") for name, entry in entries if isinstance(entry, dict)}
    return noted == {file.path: [file.size, file.mtime_ns] for file in files}


def read_chosen(path: str) -> Chosen:
    """By which wish the files of the stamp at ``path`` were chosen; by the default one where it does not say."""
    wish = _read(path, "wish")
    is_sure = wish.get("sure") is not False
    return Chosen(Wish(_globs(wish.get("include")), _globs(wish.get("exclude"))), is_sure)


def _globs(value: Any) -> tuple[str, ...]:
    return tuple(glob for glob in value if isinstance(glob, str)) if isinstance(value, list) else ()


def _read(path: str, key: str) -> dict[str, Any]:
    """One part of a stamp; empty where there is no stamp that can be read."""
    if not os.path.isfile(path):
        return {}
    try:
        part = parse_object(read_small_file(path, _MAX_STAMP_BYTES), path).get(key)
    except (FormatError, StoreError):
        return {}
    return part if isinstance(part, dict) else {}
