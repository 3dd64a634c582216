"""Files that are missing, or have another length: put back before the others are checked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.damage import size_of
from fastload._fetch.mend.restore import Restoring, find_gap
from fastload._fetch.verify.checking import whole

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.verify.checking import FileVerdict
    from fastload._finding import Finding
    from fastload._store.offer import OfferedFile


def put_back(evidence: Evidence, files: Sequence[OfferedFile], restoring: Restoring) -> dict[str, Finding]:
    """Put back what is missing or has another length: what was found of each file that is in its place again."""
    gaps = {file.path: (file, gap) for file in files if (gap := find_gap(evidence, file)) is not None}
    filled = {path: (file, gap) for path, (file, gap) in gaps.items() if restoring.restore(evidence, file)}
    return {path: replace(whole(file, gap, size_of(file)), repaired=True) for path, (file, gap) in filled.items()}


def with_lost(verdict: FileVerdict, restored: Mapping[str, Finding], relinked: Container[str]) -> FileVerdict:
    """``verdict``, with what was found of its file before it was put back."""
    lost = restored.get(verdict.path)
    if lost is None:
        return verdict
    return replace(verdict, findings=(lost, *verdict.findings), relinked=verdict.path in relinked)
