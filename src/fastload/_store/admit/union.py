"""What is published into a snapshot that fastload has brought before: the manifest and the stamp of both wishes.

A second ``warm`` of a commit, with another wish, adds to what is there. Were its manifest to name only what it brought,
the files of the first would be another tool's: known by less, counted as nobody's, never evicted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING

from fastload._store.admit.coming import find_brought
from fastload._store.admit.stamp import read_chosen, read_noted
from fastload._store.filesystem import has_size
from fastload._store.folder_offer import read_manifest
from fastload._store.linked import by_link_alone
from fastload.errors import FormatError, UnsupportedError

if TYPE_CHECKING:
    from fastload._store.admit.stamp import Published
    from fastload._store.layout import RepoLayout
    from fastload._verify.manifest import Manifest, ManifestFile


@dataclass(frozen=True, slots=True)
class Union:
    """What a snapshot holds once something is published into it."""

    manifest: Manifest
    published: Published
    has_lost: bool
    """True if something of what was brought before is not there any more."""


def unite(layout: RepoLayout, manifest: Manifest, published: Published) -> Union | None:
    """``manifest`` and ``published`` with what the snapshot holds by its own manifest; None where it has none.

    What is gone, or is another file by the name of its blob or by its length, is left out. A file that keeps both and
    was written in place stays in: so its blocks tell. What its stamp says of it is carried over, and not looked at
    again: else what has changed since would pass for what was published.
    """
    earlier = _read_earlier(layout, manifest.commit)
    if earlier is None:
        return None
    coming = {file.path for file in manifest.files}
    others = [file for file in earlier.files if file.path not in coming]
    kept = [file for file in others if _is_there(layout.snapshot(manifest.commit), file)]
    noted = read_noted(layout.stamp(manifest.commit))
    chosen = published.chosen
    has_lost = len(kept) < len(others)
    return Union(
        replace(manifest, files=tuple(sorted((*kept, *manifest.files), key=attrgetter("path")))),
        replace(
            published,
            kept={file.path: noted[file.path] for file in kept if file.path in noted},
            coming=find_brought(layout, manifest.commit),
            chosen=chosen if has_lost else chosen.after(read_chosen(layout.stamp(manifest.commit))),
        ),
        has_lost,
    )


def _read_earlier(layout: RepoLayout, commit: str) -> Manifest | None:
    """A malformed one proves nothing, and is replaced."""
    if not os.path.isdir(layout.snapshot(commit)):
        return None
    try:
        return read_manifest(layout, commit)
    except (FormatError, UnsupportedError):
        return None


def _is_there(folder: str, file: ManifestFile) -> bool:
    try:
        is_it = has_size(os.path.join(folder, file.path), file.size)
        return is_it and not by_link_alone(folder, file.path).contradicts(file)
    except OSError:  # gone in this moment
        return False
