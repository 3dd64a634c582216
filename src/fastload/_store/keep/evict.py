"""Making room: what fastload brought and nobody needs now goes, the least recently used first.

Never touched: what another tool brought, what is pinned, what somebody reads (he holds a lock on the manifest), what
was used in the last ten minutes, what is being brought in; and, where locks do not tell the truth, anything at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._store.keep.leftovers import Age
from fastload._store.keep.pin import is_pinned
from fastload._store.keep.reclaim import reclaim_leftovers
from fastload._store.keep.removal import may_remove, remove_snapshot
from fastload._store.keep.usage import read_used_ns, scan_root, touch_used
from fastload._store.layout import RepoLayout, repo_folder
from fastload._store.lease.inuse import Use, held_alone, is_being_brought
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fastload._store.keep.repo_usage import RepoUsage

__all__ = ["IDLE_S", "Kept", "evict", "list_kept", "plan_evictions", "release", "touch_used"]

IDLE_S = 600.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A snapshot that fastload brought."""

    repo: str
    commit: str
    nbytes: int
    """What removing it frees of the disk: blobs that another snapshot needs as well do not count."""
    used_ns: int
    """When it was last used or brought, as ``time.time_ns`` tells it."""
    is_pinned: bool
    is_in_use: bool
    """Somebody reads it, or brings something of its repo in, or nobody can tell."""

    def may_go(self, age: Age) -> bool:
        """True if it may be evicted."""
        return not self.is_pinned and not self.is_in_use and age.now_ns - self.used_ns >= age.idle_s * _NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """What the caller himself is bringing in: an older snapshot of its repo may go, but not what it counts on."""

    repo: str
    commit: str | None
    """Stays, with what there is of it; None: it follows from the content."""
    blobs: frozenset[str]
    """That are in their place already."""

    def among(self, usage: RepoUsage) -> RepoUsage:
        """``usage``, with this as one more snapshot that needs its blobs."""
        return replace(usage, links={**usage.links, _COMING: self.blobs}) if usage.repo == self.repo else usage


_COMING = "coming"


def list_kept(root: str) -> list[Kept]:
    """What fastload brought below ``root``, the least recently used first.

    Raises:
        StoreError: the root cannot be read.
    """
    return _list_kept(root, scan_root(root), None)


def _list_kept(root: str, usages: Iterable[RepoUsage], coming: Coming | None) -> list[Kept]:
    kept = [_look_at(usage, commit, root, coming) for usage in usages for commit in usage.brought]
    return sorted(kept, key=lambda each: (each.used_ns, each.repo, each.commit))


def _look_at(usage: RepoUsage, commit: str, root: str, coming: Coming | None) -> Kept:
    with held_alone(usage.layout, commit) as use:
        is_free = use is Use.FREE
    return Kept(
        repo=usage.repo,
        commit=commit,
        nbytes=usage.count_freed_bytes(commit),
        used_ns=read_used_ns(usage.layout, commit) or 0,
        is_pinned=is_pinned(usage.layout, commit),
        is_in_use=not is_free or _is_awaited(root, usage.repo, commit, coming),
    )


def _is_awaited(root: str, repo: str, commit: str, coming: Coming | None) -> bool:
    """True if somebody brings in something that may need the snapshot; of what the caller brings he knows what."""
    if coming is not None and coming.repo == repo:
        return coming.commit == commit
    return is_being_brought(root, repo)


def plan_evictions(root: str, wanted_bytes: int, *, usages: Iterable[RepoUsage] | None = None) -> list[Kept]:
    """What :func:`evict` would remove, each with what it would free in its turn; removes nothing.

    Args:
        root: the tier's folder.
        wanted_bytes: how much.
        usages: what there is once leftovers are gone; None: as it is now.

    Raises:
        StoreError: the root cannot be read.
    """
    planned: list[Kept] = []
    for kept in _list_evictable(root, scan_root(root) if usages is None else usages, Age(time.time_ns(), IDLE_S), None):
        if sum(each.nbytes for each in planned) >= wanted_bytes:
            break
        planned.append(kept)
    return planned


def _list_evictable(root: str, found: Iterable[RepoUsage], age: Age, coming: Coming | None) -> Iterator[Kept]:
    """What may go, in the order in which it goes, without what would free nothing."""
    usages = {usage.repo: coming.among(usage) if coming else usage for usage in found}
    evictable = [
        each
        for each in _list_kept(root, usages.values(), coming)
        if each.may_go(age) and may_remove(usages[each.repo].layout, each.commit)
    ]
    gone: dict[str, set[str]] = {repo: set() for repo in usages}
    going = {repo: {each.commit for each in evictable if each.repo == repo} for repo in usages}
    for kept in evictable:
        usage = usages[kept.repo]
        if not usage.count_freed_bytes(kept.commit, going[kept.repo]):
            continue  # all its blobs are needed by what stays
        yield replace(kept, nbytes=usage.count_freed_bytes(kept.commit, gone[kept.repo]))
        gone[kept.repo].add(kept.commit)


def evict(
    root: str, wanted_bytes: int, *, idle_s: float = IDLE_S, now_ns: int | None = None, coming: Coming | None = None
) -> list[Kept]:
    """Free ``wanted_bytes`` of the disk, or as much as may be freed: leftovers first, then whole snapshots.

    Args:
        root: the tier's folder.
        wanted_bytes: how much.
        idle_s: what was used since is left alone.
        now_ns: the time, as ``time.time_ns`` tells it.
        coming: what room is made for, where the caller holds the lease on its repo.

    Returns:
        The snapshots that were removed, each with what that freed.

    Raises:
        StoreError: the root cannot be read.
    """
    age = Age(time.time_ns() if now_ns is None else now_ns, idle_s)
    freed_bytes = reclaim_leftovers(root, idle_s=idle_s, now_ns=age.now_ns)
    evicted: list[Kept] = []
    for kept in _list_evictable(root, scan_root(root), age, coming):
        if freed_bytes >= wanted_bytes:
            break
        nbytes = _remove_unless_needed(root, kept, coming)
        if nbytes is not None:
            freed_bytes += nbytes
            evicted.append(replace(kept, nbytes=nbytes))
    return evicted


def release(root: str, is_unwanted: Callable[[str, str], bool], *, idle_s: float = IDLE_S) -> list[Kept]:
    """Remove what fastload brought, what may go, and what ``is_unwanted`` says so of, given its repo and commit.

    Returns:
        What was removed.

    Raises:
        StoreError: the root cannot be read.
    """
    age = Age(time.time_ns(), idle_s)
    released: list[Kept] = []
    for kept in list_kept(root):
        if is_unwanted(kept.repo, kept.commit) and kept.may_go(age):
            nbytes = _remove_unless_needed(root, kept, None)
            if nbytes is not None:
                released.append(replace(kept, nbytes=nbytes))
    return released


def _remove_unless_needed(root: str, kept: Kept, coming: Coming | None) -> int | None:
    """Looked at once more, now that no reader can come: the bytes that were freed, or None where it stays.

    It stays, too, where this user may not remove it: what comes next in turn may be his.
    """
    layout = RepoLayout(repo_folder(root, kept.repo))
    with held_alone(layout, kept.commit) as use:
        is_as_it_was = read_used_ns(layout, kept.commit) == kept.used_ns and not is_pinned(layout, kept.commit)
        if use is not Use.FREE or not is_as_it_was or _is_awaited(root, kept.repo, kept.commit, coming):
            return None
        awaited = coming.blobs if coming is not None and coming.repo == kept.repo else frozenset()
        try:
            return remove_snapshot(layout, kept.commit, awaited)
        except StoreError:
            return None
