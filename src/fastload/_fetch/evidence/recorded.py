"""The manifest in a plain folder, for a load: what may be believed of it, and warnings of what may not."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.damage import may_be_meant
from fastload._store.folder_offer import list_named
from fastload._store.folder_record import Contradicted, Recorded, find_record
from fastload._store.listing import is_rewritten, list_files
from fastload._store.manifest_folder import PassedOver
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload.errors import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.offer import OfferedFile
    from fastload._store.stored import Stored

OUTDATED = "%s is not what %s says of it, which is not believed. To make a new one: fastload verify %s --record"
_REWRITTEN = "%s was written after it was %s: nothing is known of it now. To record it: fastload verify %s --record"
_PASSED_OVER = "%s: it is passed over, and proves nothing. To make a new one: fastload verify %s --record"
_log = logging.getLogger("fastload")


def find_recorded(stored: PlainFolder) -> Recorded | PassedOver | None:
    """The manifest in a plain folder, if it may be believed; warns of what it may not be believed of.

    Raises:
        FormatError, StoreError: it is malformed or cannot be read.
    """
    record = find_record(stored.folder, lambda: list_named(stored))
    if isinstance(record, Contradicted):
        path = os.path.join(stored.folder, record.path)
        _log.warning(OUTDATED, path, "the manifest beside it", stored.folder)
        return None
    if isinstance(record, PassedOver):
        warn_of_passed_over(stored, record)
    elif record is not None:
        warn_of_changes(stored, record.rewritten)
    return record


def warn_of_passed_over(stored: Stored, manifest: PassedOver) -> None:
    """Say that what is there of ``stored`` proves nothing."""
    _log.warning(_PASSED_OVER, escaped(str(manifest)), escaped(shlex.quote(stored.folder)))


def warn_of_changes(stored: Stored, paths: Sequence[str]) -> None:
    """Say which of its files were written after they were recorded."""
    _warn(stored, paths, "recorded")


def warn_of_rewritten(stored: Stored, files: Iterable[OfferedFile]) -> None:
    """Say of which of ``files`` a note of their download knows nothing any more."""
    if isinstance(stored, PlainFolder) and stored.commit is None:
        unknown = (file for file in files if not (file.sha256 or file.git_sha1))
        _warn(stored, [file.path for file in unknown if is_rewritten(stored.folder, file)], "downloaded")


def accept_changes(evidence: Evidence, stored: Stored) -> Evidence:
    """``evidence`` of a recorded folder that shall be recorded again: what has come or gone is meant so."""
    if isinstance(stored, CachedSnapshot) or not may_be_meant(evidence):
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
