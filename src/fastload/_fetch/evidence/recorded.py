"""What a load says of manifests that it does not believe, and what it takes for changed on purpose."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._store.folder_offer import is_outdated_download
from fastload._store.listing import list_files, read_download
from fastload._store.stored import CachedSnapshot
from fastload._verify.trust import Contradicted, PassedOver
from fastload.errors import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored
    from fastload._verify.trust import Believed

_OUTDATED = "%s is not what %s says of it, which is not believed. To make a new one: fastload verify %s --record"
_REWRITTEN = "%s was written after it was %s: nothing is known of it now. To record it: fastload verify %s --record"
_PASSED_OVER = "%s %s: it is passed over, and proves nothing. %s: fastload verify %s --record"
_MIXED = (
    "%s: by the notes of its downloads its files are of several commits: %s. Unless they are the same in all of them, "
    "it is no model that was ever published: run the hf download again, which fetches only what differs"
)
_log = logging.getLogger("fastload")


def warn_of(stored: Stored, word: Believed | Contradicted | PassedOver | None) -> None:
    """Say that what is there of ``stored`` proves nothing, if it does not."""
    if isinstance(word, Contradicted):
        _log.warning(_OUTDATED, os.path.join(stored.folder, word.path), word.by, stored.folder)
    elif isinstance(word, PassedOver):
        first = f"First: {word.cure}; then, if that is not enough" if word.cure else "To make a new one"
        _log.warning(_PASSED_OVER, *map(escaped, (word.path, word.reason, first, shlex.quote(stored.folder))))


def warn_of_changes(stored: Stored, paths: Sequence[str]) -> None:
    """Say which of its files were written after they were recorded."""
    _warn(stored, paths, "recorded")


def warn_of_rewritten(stored: Stored, files: Iterable[OfferedFile]) -> None:
    """Say of which of ``files`` a note of their download knows nothing any more."""
    unknown = (file for file in files if not file.has_digest)
    _warn(stored, [file.path for file in unknown if is_outdated_download(stored, file)], "downloaded")


def warn_of_mixed(stored: Stored, files: Iterable[OfferedFile]) -> None:
    """Say if ``files``, which make the model, were downloaded as parts of several commits.

    A second ``hf download`` into the folder that was interrupted leaves that: each file is what its own note says, and
    together they may be no model that anybody has published. It is no damage: they may be the same in both commits.
    """
    if isinstance(stored, CachedSnapshot):
        return
    noted = (file for file in files if file.has_digest)  # each look is a question to a mount
    by_commit = {known[0]: file.path for file in noted if (known := read_download(stored.folder, file))}
    if len(by_commit) > 1:
        told = "; ".join(f"{escaped(path)} of {commit[:12]}" for commit, path in sorted(by_commit.items())[:3])
        _log.warning(_MIXED, stored.folder, told)


def accept_changes(evidence: Evidence, stored: Stored) -> Evidence:
    """``evidence`` of a recorded folder that shall be recorded again: what has come or gone is meant so."""
    if isinstance(stored, CachedSnapshot) or not evidence.may_be_meant:
        return evidence
    there = {file.path: file for file in list_files(stored.folder)}
    gone = {path: file for path, file in evidence.files.items() if path not in there}
    for path in gone:
        _log.warning("%s is gone, and is recorded no more", os.path.join(stored.folder, path))
    files = {path: evidence.files.get(path, file) for path, file in there.items()}
    unknown = {path: file for path, file in files.items() if file.blocks is None}
    return replace(
        evidence, files=files, is_closed=False, names_lost=False, outdated={**evidence.outdated, **gone, **unknown}
    )  # fmt: skip


def _warn(stored: Stored, paths: Sequence[str], since: str) -> None:
    """Once for all of ``paths``: a model that was trained again has hundreds of shards."""
    if paths:
        more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
        what = os.path.join(stored.folder, paths[0]) + more
        _log.warning(_REWRITTEN, escaped(what), since, escaped(shlex.quote(stored.folder)))
