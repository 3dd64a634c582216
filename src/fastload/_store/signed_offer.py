"""An offer whose files are known by more than its tier knows of them: by what somebody signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._store.offer import OfferAround

if TYPE_CHECKING:
    from fastload._store.offer import Offer, OfferedFile
    from fastload._verify.evidence_kind import EvidenceKind
    from fastload._verify.signature import SignedDigests


class SignedOffer(OfferAround):
    """See :class:`~fastload._store.offer.Offer`: a wrapper with its protocol."""

    def __init__(
        self, offer: Offer, signed: SignedDigests, files: tuple[OfferedFile, ...], evidence: EvidenceKind
    ) -> None:
        """``files``: those of ``offer``, by what was ``signed``; ``evidence``: what all that are wanted have."""
        super().__init__(offer)
        self.signed = signed
        self.evidence = evidence
        self.files = files
