"""Which snapshot a folder of real files shall hold (``warm --plain DIR``), where the name may mean that folder itself.

Below the root of a tier such a folder is a model of that tier, so that a second run finds it by the name that it was
brought by. But it is the target: taken for its own source, it would never see anything newer, and one that has lost a
file would be called whole without it.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.find.find_meant import find_meant
from fastload._fetch.find.meant import Meant
from fastload._fetch.find.stale import StaleWarning
from fastload._store.ref import DEFAULT_REVISION
from fastload._store.tiered import Tiers, search
from fastload._tier import PATH
from fastload.errors import HubError, ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from fastload._store.hub.tier import HubTier
    from fastload._store.ref import Candidate, Name
    from fastload._store.root import Root
    from fastload._verify.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Beside:
    """A folder, and where else to look."""

    folder: str
    holds: Manifest | None
    """What it says it holds, if all of that is there."""
    tiers: Tiers
    target: Root
    """A tier that is asked first, as for any other target."""


def find_beside(name: Name, place: Beside, hub: HubTier | None) -> Meant:
    """The snapshot that ``name`` means, by all but the folder; the folder's own where nobody else can say.

    Raises:
        UsageError: it means the folder itself, which is not known to be whole.
        ModelNotFoundError, HubError: as :func:`~fastload._fetch.find.find_meant.find_meant` says.
    """
    local = place.tiers.local
    others = Tiers(
        local=local and local.without(place.folder),
        shared=tuple(root.without(place.folder) for root in place.tiers.shared),
    )
    try:
        return find_meant(name, others, place.target.without(place.folder), hub)
    except (HubError, ModelNotFoundError) as exc:
        candidate = _find_itself(name, place)
        if candidate is None:
            raise
        if place.holds is None:
            what = f"--plain {place.folder!r} is {name.text} itself, not known to be whole, and nobody else gives it"
            hint = f"Give a folder of its own; or record what it holds: fastload verify {place.folder} --record"
            raise UsageError(f"{what} ({exc})", hint) from exc
        if isinstance(exc, HubError):
            warnings.warn(f"{exc}: taking what {place.folder} has", StaleWarning, stacklevel=2)
        return Meant(
            candidate=candidate,
            repo=place.holds.repo,
            commit=place.holds.commit,
            find_stored=lambda: (),
            hub=None,
            learnt=str(PATH),
        )


def _find_itself(name: Name, place: Beside) -> Candidate | None:
    """What of ``name`` the folder is: by what it holds, or because that is where the name leads."""
    if place.holds is not None:
        # A manifest names no branch: it may be of the usual one, and is taken for no other.
        revisions = {None, DEFAULT_REVISION, place.holds.commit}
        for candidate in name.candidates:
            if candidate.repo == place.holds.repo and candidate.revision in revisions:
                return candidate
    others = tuple(root for root in place.tiers.roots if root.path != place.target.path)
    seen = search(name, Tiers(local=place.target, shared=others))
    for stored in (seen.found, *seen.incomplete):
        if stored is not None and os.path.realpath(stored.folder) == os.path.realpath(place.folder):
            return name.candidates[0]
    return None
