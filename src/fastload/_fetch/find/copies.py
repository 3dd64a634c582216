"""Complete copies of a commit on tiers that are folders, and where one of them came from."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._fetch.find.stale import StaleWarning
from fastload._store.folder_offer import read_manifest
from fastload._store.patience import ask_all
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._store.tiered import PATIENCE_S, Search, Tiers, search
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from fastload._store.root import Root
    from fastload._store.stored import Stored

_PATIENCE_BESIDE_S = 1.0
"""With mounts that may have something newer, or know more of it, where the target has it whole: it need not wait."""


def find_origin(seen: Search, tiers: Tiers, target: Root) -> Stored | None:
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


def find_copies(repo: str, commit: str | None, tiers: Tiers, target: Root) -> tuple[CachedSnapshot, ...]:
    """Complete copies of a commit, the target's first; a mount that cannot say has none."""
    if commit is None:
        return ()
    mounts = tuple(root for root in tiers.roots if root.path != target.path)
    here = target.find_commit(repo, commit)
    patience_s = _PATIENCE_BESIDE_S if here is not None and here.is_complete else PATIENCE_S
    asked = ask_all(mounts, lambda root: root.find_commit(repo, commit), patience_s=patience_s)
    found = (here, *(stored for _, stored in asked.replies))
    return tuple(stored for stored in found if stored is not None and stored.is_complete)
