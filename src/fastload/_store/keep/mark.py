"""Marks: files of a snapshot on the local tier that were found damaged, and that nobody had right.

``.fastload/marks/<commit>.json`` says which, and the inode, size and mtime that each had. It hides nothing: what is
damaged is found by its digests, load after load. It tells ``warm``, which looks at sizes alone, to bring these files
again, and ``ls`` to say so. A file that is another one by now is not marked any more.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from fastload._store.filesystem import make_folder, remove_file
from fastload._store.note import read_note
from fastload._store.replacing import write_whole
from fastload._verify.path import PathError, check_path_in_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._store.layout import RepoLayout

_MAX_MARK_BYTES = 16 << 20  # 16 MiB


def mark_damaged(layout: RepoLayout, commit: str, path: str) -> None:
    """Mark the file at ``path`` in the snapshot of ``commit``, as it is now.

    Raises:
        StoreError: it cannot be written.
    """
    seen = _look(layout, commit, path)
    if seen is not None:
        _write(layout, commit, {**_read_valid(layout, commit), path: seen})


def find_damaged(layout: RepoLayout, commit: str) -> tuple[str, ...]:
    """The marked files that still are what they were when they were marked, sorted."""
    return tuple(sorted(_read_valid(layout, commit)))


def clear_marks(layout: RepoLayout, commit: str) -> None:
    """Forget the marks of files that were replaced; what is marked and still there stays marked.

    Raises:
        StoreError: it cannot be written.
    """
    if os.path.isfile(layout.mark(commit)):
        _write(layout, commit, _read_valid(layout, commit))


def _look(layout: RepoLayout, commit: str, path: str) -> list[int] | None:
    try:
        check_path_in_snapshot(path)
        status = os.stat(os.path.join(layout.snapshot(commit), path))
    except (OSError, PathError):  # no such file; or none that can be in a snapshot
        return None
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def _read_valid(layout: RepoLayout, commit: str) -> dict[str, list[int]]:
    # A mark that cannot be read marks nothing: the digests find what is damaged.
    found: Any = (read_note(layout.mark(commit), max_bytes=_MAX_MARK_BYTES) or {}).get("files")
    marks = found if isinstance(found, dict) else {}
    return {path: seen for path, seen in marks.items() if seen and seen == _look(layout, commit, path)}


def _write(layout: RepoLayout, commit: str, marks: Mapping[str, list[int]]) -> None:
    path = layout.mark(commit)
    if not marks:
        remove_file(path)
        return
    make_folder(os.path.dirname(path))
    make_folder(layout.ours("staging"))
    content = json.dumps({"schema": 1, "files": marks}, sort_keys=True).encode("utf-8")
    write_whole(path, content, layout.ours("staging"))
