"""What a snapshot in the hub's layout lacks, by the best witness that there is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._format.index import SHARD_SUFFIX
from fastload._store.complete import (
    find_missing_by_structure,
    find_missing_of_foreign,
    find_missing_of_listing,
    find_unfinished_blob,
    needed_of,
)
from fastload._store.listing import list_files, read_tree
from fastload._store.stored import JudgedBy
from fastload._store.wanted import Wish
from fastload.errors import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._store.layout import RepoLayout


def judge_snapshot(layout: RepoLayout, commit: str) -> tuple[JudgedBy, tuple[str, ...]]:
    """Who says what there should be of ``commit``, and what of it is not there."""
    if os.path.isfile(layout.manifest(commit)):
        return JudgedBy.MANIFEST, ()
    folder = layout.snapshot(commit)
    files = list_files(folder)
    wanted = Wish().choose(read_tree(layout.tree(commit)) or ())
    if wanted and not [*find_missing_of_listing(files, wanted)]:
        if any(file.path.endswith(SHARD_SUFFIX) for file in files):
            return JudgedBy.LISTING, ()
        # By default warm takes no weights of other formats, so that the listing says nothing of them.
        return JudgedBy.LISTING, (*find_missing_of_foreign(files), *_find_unfinished_blobs(layout))
    missing = tuple(find_missing_of_listing(files, needed_of(wanted)))
    if missing:
        return JudgedBy.LISTING, missing
    return JudgedBy.STRUCTURE, (*find_missing_by_structure(folder, files), *_find_unfinished_blobs(layout))


def _find_unfinished_blobs(layout: RepoLayout) -> Iterator[str]:
    unfinished = find_unfinished_blob(layout.blobs)
    if unfinished is not None:
        yield f"a download that was not finished ({quoted(unfinished)})"
