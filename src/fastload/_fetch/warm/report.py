"""What bringing a model up took, in the same terms as a load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._clock import Work, judge
from fastload._verify.digest import count_blocks
from fastload._verify.evidence_kind import EvidenceKind
from fastload.errors import quoted
from fastload.report import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._clock import Clock
    from fastload._fetch.bring.bring import Brought
    from fastload._read.ledger import Ledger
    from fastload._store.offer import Offer, OfferedFile

_COMPARED = {
    EvidenceKind.SIGNATURE: "what was signed",
    EvidenceKind.MANIFEST: "the manifest of where they came from",
    EvidenceKind.RECORDED: "what was recorded of the folder",
    EvidenceKind.SHA256: "the names of their blobs",
    EvidenceKind.ETAG: "what hf download noted of them",
    EvidenceKind.LISTING: "the hub's listing",
}


def make_report(offer: Offer, brought: Brought, clock: Clock, ledger: Ledger, *, learnt: str, device: str) -> Report:
    """The facts of one ``warm`` that brought something.

    Args:
        offer: where it came from.
        brought: what was published.
        clock: stopped by this.
        ledger: what was read of which tier.
        learnt: where the commit was learnt.
        device: where the bytes went: a tier, or ``path``.
    """
    clock.enter("finish")
    tally, evidence = brought.tally, _name_evidence(offer, brought.files)
    read_bytes, by_tier = ledger.own_bytes, ledger.by_tier(offer.tier)
    verdict = judge(
        Work(reader=str(offer.tier), bytes_read=read_bytes, stages=dict(clock.stages), busy_s=dict(tally.busy.seconds))
    )
    return Report(
        bytes=sum(file.size for file in brought.files),
        bytes_read=read_bytes,
        bytes_by_tier=by_tier,
        tensors=0,
        seconds=sum(clock.stages.values()),
        stages=dict(clock.stages),
        busy_s=tally.busy.by_activity,
        bound_by=verdict.bound_by,
        bottleneck=verdict.bottleneck,
        tier=str(offer.tier),
        commit=brought.commit,
        commit_learnt=learnt,
        reader=offer.tier.kind.value,
        reader_reason="the first that has it",
        evidence=evidence.value,
        evidence_reason=_explain(evidence, offer, brought),
        hashed_on="cpu",
        hashed_reason="the bytes are proven before they are kept",
        blocks_verified=sum(count_blocks(file.size) for file in brought.files),
        blocks_reread=sum(count_blocks(file.size) for file in brought.files if file.path in tally.refetched_files),
        blocks_repaired=0,
        peak_staging_bytes=min(tally.staging_bytes, by_tier[str(offer.tier)]),
        device=device,
    )


def _name_evidence(offer: Offer, files: Sequence[OfferedFile]) -> EvidenceKind:
    """What all of the files were compared with."""
    return offer.evidence if all(map(_is_known, files)) else EvidenceKind.NONE


def _is_known(file: OfferedFile) -> bool:
    return file.has_digest or file.signed is not None or not file.size  # of nothing, nothing can be wrong


def _explain(evidence: EvidenceKind, offer: Offer, brought: Brought) -> str:
    blocks = sum(count_blocks(file.size) for file in brought.files)
    cost = f"{blocks:,} blocks, {brought.tally.busy.seconds['hash']:.2f} s of hashing"
    if evidence is not EvidenceKind.NONE:
        return f"{cost}; compared with {_COMPARED[evidence]}"
    unknown = [file.path for file in brought.files if not _is_known(file)]
    more = f" and of {len(unknown) - 1} more" if len(unknown) > 1 else ""
    return f"{cost}; unverified: {offer.tier} has no digest of {quoted(unknown[0])}{more}"
