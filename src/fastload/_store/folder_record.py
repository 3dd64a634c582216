"""The manifest in a plain folder, as far as it still speaks for the files there: for a load, and for who copies them.

A folder is its owner's: what he has written since it was recorded is another file, of which nothing is known, and no
damage. What changed under the same mtime is damage.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.folder_manifest import find_folder_manifest
from fastload._store.folder_stamp import find_rewritten, tells_times
from fastload._store.listing import DOWNLOADS
from fastload._store.manifest_folder import PassedOver
from fastload._store.wanted import is_weight
from fastload._verify.difference import Difference
from fastload._verify.path import is_loaded, is_vital

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastload._store.offer import OfferedFile
    from fastload._verify.manifest import Manifest

SOURCE = "recorded"
"""The source of a manifest that says what a folder's files were when somebody had them recorded."""

UNNAMED = Difference("a shard that the manifest does not name", "only shards that it names")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A manifest that only we or root can have written, and what it says no more."""

    manifest: Manifest
    rewritten: tuple[str, ...]
    """The files that were written since."""
    untold: tuple[str, ...] = ()
    """Those of which nobody can say whether they were, and which no load reads: nothing is known of them either."""

    @property
    def is_closed(self) -> bool:
        """True if it still says which weights and indexes there should be."""
        return not any(map(is_loaded, self.rewritten))


@dataclass(frozen=True, slots=True)
class Contradicted:
    """A manifest that is not believed, since a download that came later says something else of ``path``."""

    path: str


def find_record(
    folder: str, list_named: Callable[[], Iterable[OfferedFile]]
) -> Recorded | Contradicted | PassedOver | None:
    """What was recorded of the files in a plain folder; None where nothing was.

    Args:
        folder: the plain folder.
        list_named: gives its files with what notes of a download say of them; asked where there are such notes.

    Raises:
        FormatError, StoreError: the manifest is malformed or cannot be read.
    """
    manifest = find_folder_manifest(folder)
    if manifest is None or isinstance(manifest, PassedOver):
        return manifest
    named = list_named() if os.path.isdir(os.path.join(folder, DOWNLOADS)) else ()
    changed = find_contradicting(named, manifest)
    if changed:
        return Contradicted(changed[0].path)
    if manifest.source != SOURCE:
        return Recorded(manifest, ())
    if not tells_times(folder, manifest):
        return Recorded(manifest, (), tuple(_find_untold(folder, manifest)))
    return Recorded(manifest, find_rewritten(folder, manifest))


def _find_untold(folder: str, manifest: Manifest) -> Iterator[str]:
    """All but what a load goes by: a README or a chat template is edited, and need not be damaged for that."""
    for file in manifest.files:
        is_held = is_weight(file.path) or is_vital(file.path)
        if not is_held and os.path.lexists(os.path.join(folder, file.path)):
            yield file.path


def find_contradicting(files: Iterable[OfferedFile], manifest: Manifest) -> tuple[OfferedFile, ...]:
    """Those of ``files`` that are called by another digest than the manifest's."""
    pairs = ((file, manifest.find(file.path)) for file in files)
    return tuple(file for file, listed in pairs if listed is not None and file.contradicts(listed))
