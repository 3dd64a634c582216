"""What there is of a model to be checked, and which files of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._fetch.find.at_path import follow, stored_at
from fastload._fetch.find.resolve import parse_model, tiers_of
from fastload._fetch.verify.loadable import require_weights
from fastload._store.listing import list_files
from fastload._store.stored import PlainFolder
from fastload._store.tiered import search
from fastload._store.wanted import is_weight, matches
from fastload.errors import ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.verify.examination import Examination
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored
    from fastload.options import Settings


def choose_files(stored: Stored, evidence: Evidence, wish: Examination) -> list[OfferedFile]:
    """What shall be checked of what is known and of what is there, in the order of paths.

    Raises:
        FormatError: a plain folder has no weights.
        UsageError: a glob of ``wish`` matches nothing, or a part shall be recorded.
    """
    there = {file.path: file for file in list_files(stored.folder)} if isinstance(stored, PlainFolder) else {}
    files = {**there, **evidence.files}
    if is_all_of_folder(wish, stored) and not any(map(is_weight, files)):
        require_weights(stored.folder)
    for glob in wish.include:
        if not any(matches(name, (glob,)) for name in files):
            raise UsageError(f"include={glob!r} matches none of {len(files)} files", "Leave it out to see their names")
    if wish.include and wish.records:
        raise UsageError("a manifest is of all files: record does not go with include", "Leave include out")
    return [file for name, file in sorted(files.items()) if not wish.include or matches(name, wish.include)]


def is_all_of_folder(wish: Examination, stored: Stored) -> bool:
    """True where a load takes what it finds: in a hub's cache something else says which files there should be."""
    return isinstance(stored, PlainFolder) and not wish.include


def find_stored(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> Stored:
    """What there is of ``model``, complete or not.

    Raises:
        ModelNotFoundError: no folder has anything of it.
    """
    parsed = parse_model(model, revision, settings)
    if isinstance(parsed, str):
        stored = stored_at(follow(parsed)) if os.path.lexists(parsed) else None
        if stored is None:
            raise ModelNotFoundError(parsed, (parsed,), "Check the path, and that its volume is mounted")
        return stored
    found = search(parsed, tiers_of(settings))
    there = found.found or next(iter(found.incomplete), None)
    if there is None:
        raise found.miss()
    return there
