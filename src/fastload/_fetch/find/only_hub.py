"""What no folder has, and the hub may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload.errors import AuthError, HubError

if TYPE_CHECKING:
    from fastload._store.hub.tier import HubOffer, HubTier
    from fastload._store.ref import Candidate, Name
    from fastload._store.tiered import Search


@dataclass(frozen=True, slots=True)
class HubFound:
    """What only the hub has."""

    candidate: Candidate
    offer: HubOffer


def find_offer(name: Name, hub: HubTier, seen: Search) -> HubFound:
    """The hub's offer of the first candidate that it knows.

    Raises:
        ModelNotFoundError: it knows none, and no folder has one either.
        HubError: it could not be asked, or refuses.
    """
    refusal: HubError | None = None
    for candidate in name.candidates:
        if candidate.is_bare:
            continue
        try:
            offer = hub.find(candidate.repo, candidate.revision)
        except AuthError as exc:  # another candidate may not be gated
            refusal = refusal or exc
            continue
        if offer is not None:
            return HubFound(candidate, offer)
    if refusal is not None:
        raise refusal
    raise seen.miss_with_hub("the hub")
