"""Stamps: what published files and their sources looked like, so that a look tells whether they still do.

``.fastload/stamps/<commit>.json`` is ours alone and never evidence: it saves reading, it does not prove bytes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from fastload._read.file import identify
from fastload._store.filesystem import make_folder
from fastload._store.note import read_note
from fastload._store.replacing import write_whole
from fastload._store.wanted import Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fastload._store.offer import OfferedFile

_MAX_WISHES = 8

Links: TypeAlias = "Mapping[str, list[list[int]]]"
"""What links look like, by path in the snapshot."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was published, where each file is now, and why just these files."""

    files: tuple[tuple[OfferedFile, str], ...]
    chosen: Chosen
    kept: Mapping[str, Any] = field(default_factory=dict)
    """What the stamp so far says of files, by path, that stay in the snapshot."""
    coming: Links = field(default_factory=dict)
    """See :mod:`~fastload._store.admit.coming`: of files that stay in the snapshot, and that no manifest names."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """Why just these files of a commit are there."""

    wish: Wish
    is_sure: bool = True
    """False: they came from a copy that may have lacked some of it, since nobody else could be asked."""
    also: tuple[Chosen, ...] = ()
    """Others by which files came there before, all of which are there too."""

    def meets(self, wish: Wish, paths: Iterable[str], *, must_be_sure: bool) -> bool:
        """True if these files, ``paths``, are all that ``wish`` would choose of the commit."""
        there = set(paths)
        counted = (each for each in (self, *self.also) if each.is_sure or not must_be_sure)
        return any(wish.is_met_by(each.wish, there) for each in counted)

    def after(self, earlier: Chosen) -> Chosen:
        """Why the files of both are there, where all that was chosen ``earlier`` still is."""
        joined = replace(self, also=())
        apart: list[Chosen] = []
        for part in (replace(earlier, also=()), *earlier.also):
            wish = joined.wish.joined(part.wish) if part.is_sure == joined.is_sure else None
            if wish is not None:
                joined = replace(joined, wish=wish)
            elif part not in apart:
                apart.append(part)
        return replace(joined, also=tuple(apart[:_MAX_WISHES]))


def write_stamp(path: str, published: Published, scratch: str) -> None:
    """Note at ``path`` what the files look like, and did where they came from, and by which wish they were chosen.

    Raises:
        StoreError: it cannot be written.
    """
    document = dict(published.kept)
    for file, place in published.files:
        identity = identify(os.stat(place))
        document[file.path] = {**identity._asdict(), "source": [file.size, file.mtime_ns]}
    make_folder(os.path.dirname(path))
    chosen = published.chosen
    wish: dict[str, object] = _describe(chosen)
    if chosen.also:
        wish["also"] = [_describe(other) for other in chosen.also]
    coming = {name: links for name, links in published.coming.items() if name not in document}
    write_whole(path, dump_stamp(document, wish, coming), scratch)


def dump_stamp(files: Mapping[str, Any], wish: Mapping[str, object], coming: Links) -> bytes:
    """A stamp of these parts."""
    whole: dict[str, object] = {"schema": 1, "files": files, "wish": wish}
    if coming:
        whole["coming"] = coming
    return json.dumps(whole, sort_keys=True).encode("utf-8")


def source_is_unchanged(path: str, files: Iterable[OfferedFile]) -> bool:
    """True if ``files`` are those of the stamp at ``path``, each with the size and mtime it had where it came from."""
    noted = {name: entry.get("source") for name, entry in read_noted(path).items()}
    return noted == {file.path: [file.size, file.mtime_ns] for file in files}


def read_noted(path: str) -> dict[str, dict[str, Any]]:
    """What the stamp at ``path`` says of each file; nothing where there is none that can be read."""
    return {name: entry for name, entry in read_part(path, "files").items() if isinstance(entry, dict)}


def read_chosen(path: str) -> Chosen:
    """By which wish the files of the stamp at ``path`` were chosen; by the default one where it does not say."""
    wish = read_part(path, "wish")
    others = wish.get("also")
    also = [_chosen(other) for other in others if isinstance(other, dict)] if isinstance(others, list) else []
    return replace(_chosen(wish), also=tuple(also))


def _describe(chosen: Chosen) -> dict[str, object]:
    wish: dict[str, object] = {"include": chosen.wish.include, "exclude": chosen.wish.exclude}
    return wish if chosen.is_sure else {**wish, "sure": False}


def _chosen(wish: Mapping[str, Any]) -> Chosen:
    return Chosen(Wish(_globs(wish.get("include")), _globs(wish.get("exclude"))), wish.get("sure") is not False)


def _globs(value: Any) -> tuple[str, ...]:
    return tuple(glob for glob in value if isinstance(glob, str)) if isinstance(value, list) else ()


def read_part(path: str, key: str) -> dict[str, Any]:
    """One part of a stamp; empty where there is no stamp that can be read."""
    part = (read_note(path) or {}).get(key)
    return part if isinstance(part, dict) else {}
