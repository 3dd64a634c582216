"""What all that was checked of a stored snapshot is proven by, as a load of it would say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._store.wanted import deciding_of
from fastload._verify.evidence_kind import EvidenceKind, weakest
from fastload._verify.path import is_index

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._store.offer import OfferedFile


def find_kind(evidence: Evidence, files: Collection[OfferedFile]) -> EvidenceKind:
    """The least of what is known of the weights and indexes among ``files``.

    Where nothing is known of an index, nothing is of the model: what it does not name is not loaded. A shard of which
    nothing is known need not be the model's.
    """
    deciding = {file.path: evidence.files.get(file.path) for file in deciding_of(files)}
    known = {path: file for path, file in deciding.items() if file is not None and _has_evidence(file)}
    if any(is_index(path) for path in deciding.keys() - known.keys()):
        return EvidenceKind.NONE
    return weakest([evidence.kind, *map(evidence.kind_of, known.values())])


def _has_evidence(file: OfferedFile) -> bool:
    return file.blocks is not None or file.has_digest or file.signed is not None
