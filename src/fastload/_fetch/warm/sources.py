"""What gives the files of the snapshot that a warm is to bring, the best first, and who is left where none does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._fetch.evidence.keyed import check_place, hold_to_key
from fastload._fetch.find.passing import Passing
from fastload._store.admit.stamp import source_is_unchanged
from fastload._tier import HUB, PATH
from fastload.errors import (
    FastloadError,
    FormatError,
    HubError,
    IntegrityError,
    ModelNotFoundError,
    SignatureError,
    StoreError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._fetch.find.meant import Meant
    from fastload._fetch.warm.target import Target
    from fastload._store.offer import Offer
    from fastload._store.signed_offer import SignedOffer
    from fastload._store.wanted import Wish
    from fastload._tier import Tier


_HAS_ANOTHER = (FormatError, IntegrityError, SignatureError, UnsupportedError)
_NOT_SIGNED = (*_HAS_ANOTHER, HubError, StoreError)
"""What keeps one source from giving what was signed. That the key itself is none was told before any was asked."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of one snapshot for one target."""

    meant: Meant
    target: Target
    wish: Wish
    key: str | None
    """The file of the key whose holder must have signed it."""

    def offers(self, passing: Passing) -> Iterator[Offer]:
        """What gives the files; ``passing`` is told which cannot, and warns of them once another one is tried."""
        try:
            for offer in self.meant.offers(self.target.own_tier, self.wish, passing):
                signed = self._hold(offer, passing)
                if signed is not None:
                    passing.tell(offer.tier)
                    yield signed
        except HubError as exc:  # it is asked last
            passing.over(HUB, exc)

    def _hold(self, offer: Offer, passing: Passing) -> Offer | None:
        """``offer``, held to the key; None where it is not what its holder signed, which ``passing`` is told."""
        if self.key is None:
            return offer
        try:
            signed = hold_to_key(offer, self.wish, self.key)
        except _NOT_SIGNED as exc:
            if isinstance(exc, _HAS_ANOTHER):  # the others name a path, or an address, of their own
                exc.add_hint(f"It is so {_say_where(offer.tier)}")
            passing.over(offer.tier, exc)
            return None
        self._check_place(signed)
        return signed

    def _check_place(self, offer: SignedOffer) -> None:
        """What lies where it would be brought to is there whoever gives the rest."""
        folder = self.target.folder(self.meant, offer.commit)
        if folder is not None:
            check_place(offer, self.wish, folder, self.target.list_replaced())

    def first(self) -> Offer:
        """The best.

        Raises:
            FastloadError: there is none.
        """
        passing = Passing()
        for offer in self.offers(passing):
            return offer
        raise self.nobody(passing)

    def nobody(self, passing: Passing) -> FastloadError:
        """What to raise where none gives them."""
        meant, target = self.meant, self.target
        return passing.explained or ModelNotFoundError(str(meant.candidate), (target.root.path,), "Check the name")

    def is_unchanged(self, stamp: str) -> bool:
        """True if the plain folder is as it was when it was brought, as the stamp at ``stamp`` says."""
        as_it_is = replace(self, key=None)  # signed or not
        return source_is_unchanged(stamp, self.wish.choose(as_it_is.first().files))


def _say_where(tier: Tier) -> str:
    return "at the path that was given" if tier == PATH else f"on {tier}"
