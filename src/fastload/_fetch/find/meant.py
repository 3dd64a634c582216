"""One snapshot that is meant, and in which order tiers may give its files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._fetch.find.gaps import split_by_gaps
from fastload._fetch.find.stale import warn_stale
from fastload._store.folder_offer import offer_stored
from fastload._store.stored import JudgedBy, PlainFolder
from fastload.errors import FormatError, HubError, ModelNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._fetch.find.passing import Passing
    from fastload._store.folder_offer import FolderOffer
    from fastload._store.hub.tier import HubTier
    from fastload._store.manifest_folder import ManifestFolder
    from fastload._store.offer import Offer
    from fastload._store.ref import Candidate
    from fastload._store.stored import Stored
    from fastload._store.wanted import Wish
    from fastload._tier import Tier


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
            warn_stale(exc, instead)
            return None
