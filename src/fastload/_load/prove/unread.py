"""What proves shards of which nothing is read: their headers tell all the same which tensors there are.

Where no index names the tensors, the headers do, all of them together. One that is wrong may lack what was asked for,
and be as valid as any: what is loaded then is another model, though each byte of it is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from fastload._fetch.evidence.evidence import Evidence
    from fastload._format.checkpoint import Checkpoint, Shard
    from fastload._verify.evidence_kind import EvidenceKind

_NOTHING_READ = (
    "nothing was read, and nothing is known of the headers",
    "nothing was read, and without block digests the headers are not proven",
)
_PART_READ = ("nothing is known of a shard that may hold more", "no block digests, and only a part is read")


def prove_unread(checkpoint: Checkpoint, shards: Collection[int], evidence: Evidence) -> tuple[set[EvidenceKind], str]:
    """What proved the headers of those that are not among ``shards``, and why not all of them were."""
    if not shards:
        return _prove_headers(checkpoint.shards, evidence, _NOTHING_READ)
    if not checkpoint.is_named_by_headers:
        return set(), ""
    unread = (shard for number, shard in enumerate(checkpoint.shards) if number not in shards)
    return _prove_headers(unread, evidence, _PART_READ)


def _prove_headers(
    shards: Iterable[Shard], evidence: Evidence, sayings: tuple[str, str]
) -> tuple[set[EvidenceKind], str]:
    kinds: set[EvidenceKind] = set()
    for shard in shards:
        known = evidence.find(shard.path)
        if known is None:
            return kinds, evidence.explain_unknown(sayings[0])
        if known.blocks is None:
            return kinds, sayings[1]
        kinds.add(evidence.kind_of(known))
    return kinds, ""
