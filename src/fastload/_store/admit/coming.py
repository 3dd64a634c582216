"""What a ``warm`` adds to a snapshot before its manifest names it, so that who dies between leaves it fastload's.

The note lies in the stamp. It says which links they are, not what they lead to: huggingface_hub makes the same, and may
bring a file that a ``warm`` had noted and never showed. A link keeps its inode and its mtime under whatever name, and
in whatever folder, it is put; one that another makes has others. So the note is written when the links are made, and
nobody has seen them yet. In a copy of the tier they are not these links, and so count as another tool's.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from fastload._store.admit.stamp import dump_stamp, read_part
from fastload._store.filesystem import make_folder
from fastload._store.replacing import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastload._store.admit.stamp import Links
    from fastload._store.layout import RepoLayout


def note_coming(layout: RepoLayout, commit: str, built: str, paths: Iterable[str], so_far: Links) -> None:
    """Add to the stamp of ``commit`` the links at ``paths`` in the folder ``built``, which is about to be shown.

    ``so_far``: what :func:`find_brought` has found, which is there until then.

    Raises:
        StoreError: it cannot be written.
    """
    stamp = layout.stamp(commit)
    coming: dict[str, list[list[int]]] = {path: [*links] for path, links in so_far.items()}
    for path in paths:
        link = _identify(os.path.join(built, path))
        if link is not None:
            coming.setdefault(path, []).append(link)
    make_folder(os.path.dirname(stamp))
    write_whole(stamp, dump_stamp(read_part(stamp, "files"), read_part(stamp, "wish"), coming), layout.ours("staging"))


def find_brought(layout: RepoLayout, commit: str) -> dict[str, list[list[int]]]:
    """The links in the snapshot that the stamp's note tells, by path, each with what it looks like."""
    noted = read_part(layout.stamp(commit), "coming")
    found = {path: _identify(os.path.join(layout.snapshot(commit), path)) for path in noted}
    return {path: [link] for path, link in found.items() if link is not None and _has(noted[path], link)}


def _has(links: object, link: list[int]) -> bool:
    return isinstance(links, list) and link in links


def _identify(path: str) -> list[int] | None:
    """Which link it is; None: none is there."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return [status.st_ino, status.st_mtime_ns] if stat.S_ISLNK(status.st_mode) else None
