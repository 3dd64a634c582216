"""Which snapshot is meant, and which tier gives it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.find.gaps import split_by_gaps
from fastload._store.folder_offer import offer_stored, read_manifest
from fastload._store.hub.tier import HubAccess, HubTier, Patience
from fastload._store.patience import ask_all
from fastload._store.stored import CachedSnapshot, JudgedBy, PlainFolder
from fastload._store.tiered import PATIENCE_S, Search, Tiers, search
from fastload._tier import HUB, TierKind
from fastload.errors import AuthError, FormatError, HubError, ModelNotFoundError, NetworkError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._fetch.find.passing import Passing
    from fastload._settings.hub import HubSettings
    from fastload._store.folder_offer import FolderOffer
    from fastload._store.hub.tier import HubOffer
    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import Offer
    from fastload._store.ref import Candidate, Name
    from fastload._store.root import Root
    from fastload._store.stored import Stored
    from fastload._store.wanted import Wish
    from fastload._tier import Tier
    from fastload.options import Settings


_PATIENCE_BESIDE_S = 1.0
"""With mounts that may have something newer, or know more of it, where the target has it whole: it need not wait."""


class StaleWarning(UserWarning):
    """The hub could not say whether there is something newer; what is there serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """One snapshot, as far as it is known before its files are."""

    candidate: Candidate
    repo: str
    commit: str | None
    """None for a plain folder, whose commit follows from its content."""
    find_stored: Callable[[], tuple[Stored, ...]]
    """Complete copies on tiers that are folders, the best first; asked when bytes are wanted, since mounts may hang."""
    hub: HubTier | None
    """Gives it where no folder does; None: must not be asked, or could not be."""
    learnt: str
    """Where the commit was learnt: ``name``, ``hub`` or a tier."""
    in_place: PlainFolder | None = None
    """The plain folder on the target itself that it is; brought up, it would take its room twice."""
    manifests: ManifestFolder | None = None
    """Where manifests of copies may be kept apart, to which their files are held."""

    def offers(self, target: Tier | None, wish: Wish, passing: Passing) -> Iterator[Offer]:
        """What gives its files, the best first.

        Other folders; ``target`` itself, where a manifest or a listing says that all is there; the hub; ``target``,
        where only its files suggest it. A copy that may lack some of what is wished for serves only where the hub's
        listing says that it does not, or where there is no hub to ask. ``passing`` is told of those that cannot say
        what they have.
        """
        copies = self.find_stored()
        here = next((stored for stored in copies if stored.tier == target), None)
        doubtful: list[FolderOffer] = []
        for stored in (*(stored for stored in copies if stored is not here), *([here] if here else [])):
            copy = self._read_offer(stored, passing)
            if copy is None:
                here = None if stored is here else here
            elif copy.lacks(wish):
                doubtful.append(copy)
            elif stored is not here or stored.judged_by is not JudgedBy.STRUCTURE:
                yield copy
        is_lacking = any(copy.tier == target for copy in doubtful) or (here is None and bool(doubtful))
        offer = self._find_on_hub(None if is_lacking else here)
        if offer is not None:
            listed = (replace(copy, named=offer.files) for copy in doubtful if copy.tier != target)
            yield from (copy for copy in listed if not copy.lacks(wish))
            yield offer
        if here is not None and here.judged_by is JudgedBy.STRUCTURE and not is_lacking:
            yield offer_stored(here, self.manifests)
        if offer is None and doubtful:
            yield from self._without_hub(doubtful, copies, wish)

    def _read_offer(self, stored: Stored, passing: Passing) -> FolderOffer | None:
        """What ``stored`` has; None where what is said of it cannot be believed."""
        try:
            return offer_stored(stored, self.manifests)
        except (FormatError, StoreError) as exc:
            passing.over(stored.tier, exc)
            return None

    def _without_hub(
        self, doubtful: Sequence[FolderOffer], copies: Sequence[Stored], wish: Wish
    ) -> Iterator[FolderOffer]:
        """Those of the ``doubtful`` that may be all there is.

        Raises:
            ModelNotFoundError: of none of the ``copies`` that can be.
        """
        whole, gaps = split_by_gaps(doubtful, wish)
        yield from whole
        if len(gaps) == len(copies):
            hint = f"{'. '.join(gaps)}. Finish the download, or let the hub be asked"
            raise ModelNotFoundError(str(self.candidate), tuple(stored.folder for stored in copies), hint)

    def _find_on_hub(self, instead: Stored | None) -> Offer | None:
        """The hub's; None where it has none, or does not say and there is something ``instead``."""
        if self.hub is None or self.commit is None:
            return None
        try:
            return self.hub.find(self.repo, self.commit)
        except HubError as exc:
            if instead is None:
                raise
            _warn(exc, instead)
            return None


def _warn(exc: HubError, here: Stored) -> None:
    warnings.warn(f"{exc}: taking what {here.tier} has", StaleWarning, stacklevel=3)


def hub_of(settings: Settings, patience: Patience | None = None) -> HubTier | None:
    """The hub, where it may be asked."""
    if TierKind.HUB not in settings.tiers or settings.hub.is_offline:
        return None
    return HubTier(replace(_access(settings.hub), patience=patience or Patience()))


def _access(hub: HubSettings) -> HubAccess:
    return HubAccess(
        endpoint=hub.endpoint,
        token=hub.token,
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
    here = _find_origin(seen, tiers, target) or seen.found
    candidates = [c for c in name.candidates if here is None or c.repo == here.repo]
    asked = None
    # A plain folder was put there by somebody who knew what he wanted; the hub could only name another commit.
    if hub is not None and not isinstance(here, PlainFolder):
        try:
            asked = _ask_hub(candidates, hub, tiers, target)
        except HubError as exc:  # a token that has expired takes away nothing that is here
            if here is None:
                raise
            _warn(exc, here)
            hub = None
    if asked is not None:
        return asked
    if here is None:
        raise seen.miss() if hub is None else seen.miss_with_hub(hub.endpoint)
    candidate = candidates[0] if candidates else name.candidates[0]
    return Meant(
        candidate=candidate,
        repo=here.repo,
        commit=here.commit,
        find_stored=lambda: _copies(here.repo, here.commit, tiers, target) or (here,),
        hub=hub,
        learnt="name" if candidate.is_pinned else str(here.tier),
        in_place=here if isinstance(here, PlainFolder) and here.tier == target.tier else None,
    )


def _find_origin(seen: Search, tiers: Tiers, target: Root) -> Stored | None:
    """What the mount has now that the target's copy came from: its plain folder may have changed, its ref moved."""
    here = seen.found
    source = _read_source(here) if here is not None and here.tier == target.tier else None
    origins = tuple(root for root in tiers.shared if str(root.tier) == source and root.path != target.path)
    moving = tuple(candidate for candidate in seen.name.candidates if not candidate.is_pinned)
    if here is None or not origins or not moving:
        return None
    tiers = Tiers(local=None, shared=origins)
    found = search(replace(seen.name, candidates=moving), tiers, patience_s=_PATIENCE_BESIDE_S)
    for tier, reason in found.silent:
        warnings.warn(f"{tier} could not be asked ({reason}): taking what {here.tier} has", StaleWarning, stacklevel=4)
    return found.found


def _read_source(stored: Stored) -> str | None:
    """The tier that it came from, by its manifest."""
    if isinstance(stored, PlainFolder):
        return None
    try:
        manifest = read_manifest(stored.layout, stored.commit)
    except (FormatError, StoreError):
        return None
    return manifest.source if manifest is not None else None


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
        return Meant(
            candidate=candidate,
            repo=candidate.repo,
            commit=commit,
            find_stored=partial(_copies, candidate.repo, commit, tiers, target),
            hub=hub,
            learnt="name" if candidate.is_pinned else str(HUB),
        )
    if refusal is not None:
        raise refusal
    return None


def _copies(repo: str, commit: str | None, tiers: Tiers, target: Root) -> tuple[CachedSnapshot, ...]:
    """Complete copies of a commit, the target's first; a mount that cannot say has none."""
    if commit is None:
        return ()
    mounts = tuple(root for root in tiers.roots if root.path != target.path)
    here = target.find_commit(repo, commit)
    patience_s = _PATIENCE_BESIDE_S if here is not None and here.is_complete else PATIENCE_S
    asked = ask_all(mounts, lambda root: root.find_commit(repo, commit), patience_s=patience_s)
    found = (here, *(stored for _, stored in asked.replies))
    return tuple(stored for stored in found if stored is not None and stored.is_complete)


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
