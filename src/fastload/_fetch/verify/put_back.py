"""Files that are missing: put back before the others are checked.

One of another length is checked and mended like any other: most of its blocks may be right.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.damage import size_of
from fastload._fetch.mend.restore import Restoring, find_gap, is_lost
from fastload._fetch.verify.checking import whole

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._fetch.verify.checking import FileVerdict
    from fastload._finding import Finding
    from fastload._store.offer import OfferedFile


def put_back(evidence: Evidence, files: Sequence[OfferedFile], restoring: Restoring) -> dict[str, Finding]:
    """Put back what is missing: what was found of each file that is in its place again."""
    lost = [file for file in files if is_lost(os.path.join(evidence.folder, file.path), file)]
    gaps = {file.path: (file, gap) for file in lost if (gap := find_gap(evidence, file)) is not None}
    filled = {path: (file, gap) for path, (file, gap) in gaps.items() if restoring.restore(evidence, file)}
    return {path: replace(whole(file, gap, size_of(file)), repaired=True) for path, (file, gap) in filled.items()}


def with_lost(verdict: FileVerdict, restored: Mapping[str, Finding], relinked: Container[str]) -> FileVerdict:
    """``verdict``, with what was found of its file before it was put back."""
    lost = restored.get(verdict.path)
    if lost is None:
        return verdict
    return replace(verdict, findings=(lost, *verdict.findings), relinked=verdict.path in relinked)
