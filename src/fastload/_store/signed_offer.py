"""An offer whose files are known by more than its tier knows of them: by what somebody signed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload._read.reader import Reader
    from fastload._store.offer import Offer, OfferedFile
    from fastload._store.wanted import Wish
    from fastload._verify.evidence_kind import EvidenceKind
    from fastload._verify.signature import SignedDigests


class SignedOffer:
    """See :class:`~fastload._store.offer.Offer`: a wrapper with its protocol."""

    def __init__(
        self, offer: Offer, signed: SignedDigests, files: tuple[OfferedFile, ...], evidence: EvidenceKind
    ) -> None:
        """``files``: those of ``offer``, by what was ``signed``; ``evidence``: what all that are wanted have."""
        self.signed = signed
        self.tier = offer.tier
        self.repo = offer.repo
        self.commit = offer.commit
        self.evidence = evidence
        self.files = files
        self.folder = offer.folder
        self.depth = offer.depth
        self._offer = offer

    def lacks(self, wish: Wish) -> bool:
        """See :class:`~fastload._store.offer.Offer`."""
        return self._offer.lacks(wish)

    def open(self, file: OfferedFile) -> Reader:
        """See :class:`~fastload._store.offer.Offer`."""
        return self._offer.open(file)
