"""Which snapshot is meant, and which tier gives it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.folder_offer import offer_stored
from fastload._store.hub import HubAccess, HubTier
from fastload._store.tiered import Search, Tiers, search
from fastload.errors import AuthError, HubError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._settings.hub import HubSettings
    from fastload._store.offer import Offer
    from fastload._store.ref import Candidate, Name
    from fastload._store.root import Root, Stored
    from fastload.options import Settings


class StaleWarning(UserWarning):
    """The hub could not say whether there is something newer; what is there serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """One snapshot, as far as it is known before its files are."""

    candidate: Candidate
    repo: str
    commit: str | None
    """None for a plain folder, whose commit follows from its content."""
    stored: tuple[Stored, ...]
    """Complete copies on tiers that are folders, the best first."""
    hub: HubTier | None
    """Gives it where no folder does; None: must not be asked, or could not be."""
    learnt: str
    """Where the commit was learnt: ``name``, ``hub`` or a tier."""

    def offer(self, besides: str) -> Offer | None:
        """The offer of the first tier but ``besides`` that has it."""
        for stored in self.stored:
            if stored.tier != besides:
                return offer_stored(stored)
        if self.hub is not None and self.commit is not None:
            return self.hub.find(self.repo, self.commit)
        return None


def hub_of(settings: Settings) -> HubTier | None:
    """The hub, where it may be asked."""
    if "hub" not in settings.tiers or settings.hub.is_offline:
        return None
    return HubTier(_access(settings.hub))


def _access(hub: HubSettings) -> HubAccess:
    return HubAccess(
        endpoint=hub.endpoint,
        ca_file=hub.ca_file,
        http_proxy=hub.http_proxy,
        https_proxy=hub.https_proxy,
        no_proxy=hub.no_proxy,
    )


def find_meant(name: Name, tiers: Tiers, target: Root, hub: HubTier | None) -> Meant:
    """The snapshot that ``name`` means now: the hub is asked once where the name is a moving one of its own.

    Args:
        name: what the user wants.
        tiers: the folders that may be asked.
        target: the folder that it shall be brought to, which counts too.
        hub: None where it must not be asked.

    Raises:
        ModelNotFoundError: nobody has it.
        HubError: only the hub could have it, and does not give it.
    """
    seen = search(name, Tiers(local=target, shared=tuple(r for r in tiers.roots if r.path != target.path)))
    here = seen.found
    candidates = [c for c in name.candidates if here is None or c.repo == here.repo]
    asked = None
    # A plain folder was put there by somebody who knew what he wanted; the hub could only name another commit.
    if hub is not None and (here is None or here.layout is not None):
        try:
            asked = _ask_hub(candidates, hub, tiers, target)
        except NetworkError as exc:
            if here is None:
                raise
            warnings.warn(f"{exc}: taking what {here.tier} has", StaleWarning, stacklevel=2)
            hub = None
    if asked is not None:
        return asked
    if here is None:
        raise seen.miss(*([] if hub is None else [hub.endpoint]))
    candidate = candidates[0] if candidates else name.candidates[0]
    copies = (here,) if here.commit is None or here.layout is None else _copies(here.repo, here.commit, tiers, target)
    return Meant(
        candidate=candidate, repo=here.repo, commit=here.commit, stored=copies or (here,), hub=hub, learnt=here.tier
    )


def _ask_hub(candidates: list[Candidate], hub: HubTier, tiers: Tiers, target: Root) -> Meant | None:
    """The first candidate that the hub knows; a pinned one that a folder has complete is not asked for."""
    refusal: HubError | None = None
    for candidate in candidates:
        if candidate.is_bare:
            continue
        try:
            commit = candidate.revision if candidate.is_pinned else hub.find_commit(candidate.repo, candidate.revision)
        except NetworkError:
            raise
        except HubError as exc:  # gated: another candidate may not be
            refusal = refusal or exc
            continue
        if commit is None:
            continue
        copies = _copies(candidate.repo, commit, tiers, target)
        learnt = "name" if candidate.is_pinned else "hub"
        return Meant(candidate=candidate, repo=candidate.repo, commit=commit, stored=copies, hub=hub, learnt=learnt)
    if refusal is not None:
        raise refusal
    return None


def _copies(repo: str, commit: str, tiers: Tiers, target: Root) -> tuple[Stored, ...]:
    def look() -> Iterator[Stored]:
        for root in (target, *(root for root in tiers.roots if root.path != target.path)):
            stored = root.find_commit(repo, commit)
            if stored is not None and stored.is_complete:
                yield stored

    return tuple(look())


@dataclass(frozen=True, slots=True)
class HubFound:
    """What only the hub has."""

    candidate: Candidate
    offer: Offer


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
    raise seen.miss("the hub")
