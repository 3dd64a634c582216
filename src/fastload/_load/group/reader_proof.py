"""What proves a load whose bytes several ranks read: what proves them where they are proven least.

Ranks may have the model from tiers of their own, with other evidence, and each proves what it reads by its own. What
one of them reads unproven goes to all the others as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._verify.evidence_kind import EvidenceKind, weakest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastload._load.prove.proving import Proving
    from fastload._verify.manifest import ManifestFile


@dataclass(frozen=True, slots=True)
class ReaderProof:
    """How one rank proves what it reads."""

    evidence: EvidenceKind
    """See :class:`~fastload._load.prove.proving.Proving`, this and the next two."""
    reason: str
    is_serial: bool
    place: str
    """From where it reads: its machine, and the snapshot's folder."""


@dataclass(frozen=True, slots=True)
class ProvenTogether:
    """What the ranks proved of a load."""

    files: dict[str, ManifestFile]
    """By all ranks of this machine, where this is the first of them; else nothing."""
    doubt: str
    """Why what came from another rank is not proven; empty: it is."""


def share_proof(proving: Proving, readers: Mapping[int, ReaderProof], rank: int) -> Proving:
    """The ``proving`` of ``rank``, as far as that of the ``readers``, by their numbers, goes.

    Unproven bytes may be kept only if all ranks read the same folder by the same evidence: else the copy could mix two
    states of the model.
    """
    if not readers:
        return proving
    kind = weakest(each.evidence for each in readers.values())
    who = next((each for each in readers if each != rank and readers[each].evidence is kind), rank)
    found = readers[who]
    reason = found.reason if who == rank or not found.reason else f"rank {who}: {found.reason}"
    is_one_place = len({(each.place, each.evidence) for each in readers.values()}) == 1
    return replace(
        proving,
        evidence=kind,
        reason=reason,
        is_serial=any(each.is_serial for each in readers.values()),
        may_be_kept=kind is not EvidenceKind.NONE or is_one_place,
    )
