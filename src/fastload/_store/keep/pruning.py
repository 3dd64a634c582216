"""Bringing a tier down to a size: leftovers go, then what was not used for longest. Or what would go is only said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.keep.evict import evict, plan_evictions
from fastload._store.keep.reclaim import count_leftovers, reclaim_leftovers
from fastload._store.keep.usage import count_kept_bytes, scan_root

if TYPE_CHECKING:
    from fastload._store.keep.evict import Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What pruning did, or would do."""

    evicted: tuple[Kept, ...]
    reclaimed_bytes: int
    """Freed of leftovers."""
    kept_bytes: int
    """What fastload keeps then."""


def prune_root(root: str, limit_bytes: int | None) -> Pruning:
    """Remove leftovers below ``root``, and snapshots until no more than ``limit_bytes`` are kept; None: none.

    Raises:
        StoreError: the root cannot be read.
    """
    reclaimed_bytes = reclaim_leftovers(root)
    kept_bytes = count_kept_bytes(root)
    if limit_bytes is None or kept_bytes <= limit_bytes:
        return Pruning(evicted=(), reclaimed_bytes=reclaimed_bytes, kept_bytes=kept_bytes)
    evicted = evict(root, kept_bytes - limit_bytes)
    return Pruning(evicted=tuple(evicted), reclaimed_bytes=reclaimed_bytes, kept_bytes=count_kept_bytes(root))


def plan_pruning(root: str, limit_bytes: int | None) -> Pruning:
    """What :func:`prune_root` would do as things are; removes nothing.

    Raises:
        StoreError: the root cannot be read.
    """
    reclaimed_bytes, clearings = count_leftovers(root)
    cleared = {clearing.repo: clearing for clearing in clearings}
    usages = [cleared[usage.repo].after(usage) if usage.repo in cleared else usage for usage in scan_root(root)]
    kept_bytes = sum(usage.count_kept_bytes() for usage in usages)
    if limit_bytes is None or kept_bytes <= limit_bytes:
        return Pruning(evicted=(), reclaimed_bytes=reclaimed_bytes, kept_bytes=kept_bytes)
    evicted = plan_evictions(root, kept_bytes - limit_bytes, usages=usages)
    left = (usage.without({each.commit for each in evicted if each.repo == usage.repo}) for usage in usages)
    kept_bytes = sum(usage.count_kept_bytes() for usage in left)
    return Pruning(evicted=tuple(evicted), reclaimed_bytes=reclaimed_bytes, kept_bytes=kept_bytes)
