"""Which snapshot a name means now: the hub is asked once, where the name is a moving one of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastload._fetch.find.copies import find_copies, find_origin
from fastload._fetch.find.meant import Meant
from fastload._fetch.find.stale import warn_stale
from fastload._store.stored import PlainFolder
from fastload._store.tiered import Tiers, search
from fastload._tier import HUB
from fastload.errors import HubError, NetworkError

if TYPE_CHECKING:
    from fastload._store.hub.tier import HubTier
    from fastload._store.ref import Candidate, Name
    from fastload._store.root import Root


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
    here = find_origin(seen, tiers, target) or seen.found
    candidates = [c for c in name.candidates if here is None or c.repo == here.repo]
    asked = None
    # A plain folder was put there by somebody who knew what he wanted; the hub could only name another commit.
    if hub is not None and not isinstance(here, PlainFolder):
        try:
            asked = _ask_hub(candidates, hub, tiers, target)
        except HubError as exc:  # a token that has expired takes away nothing that is here
            if here is None:
                raise
            warn_stale(exc, here)
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
        find_stored=lambda: find_copies(here.repo, here.commit, tiers, target) or (here,),
        hub=hub,
        learnt="name" if candidate.is_pinned else str(here.tier),
        in_place=here if isinstance(here, PlainFolder) and here.tier == target.tier else None,
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
        return Meant(
            candidate=candidate,
            repo=candidate.repo,
            commit=commit,
            find_stored=partial(find_copies, candidate.repo, commit, tiers, target),
            hub=hub,
            learnt="name" if candidate.is_pinned else str(HUB),
        )
    if refusal is not None:
        raise refusal
    return None
