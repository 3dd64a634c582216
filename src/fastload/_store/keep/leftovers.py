"""What was left behind: by removals that were broken off, and by writers that died on their way.

A staged file is worth its bytes to whoever brings the same content next, so it goes only where nobody can come back to
it and nobody needs it any more: its content is published by now, its writer provably died in this boot, or nobody has
touched it for a day.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.admit.area import StagingArea
from fastload._store.admit.journal import read_boot
from fastload._store.keep.disk import count_disk_bytes, find_mtime_ns, list_folder
from fastload._store.keep.grave import has_nobody, is_grave
from fastload._store.keep.removal import finish_removals, remove_snapshot
from fastload._store.keep.tidy import remove_emptied, remove_empty
from fastload._store.keep.usage import list_repos, list_snapshots, read_used_ns
from fastload._store.layout import BENCH_PREFIX, lease_folder
from fastload._store.lease.inuse import Use, held_alone, is_being_brought
from fastload._store.lease.lock import flock_is_truthful, open_lock, read_boot_id, try_exclusive
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._store.layout import RepoLayout

_ABANDONED_S = 24 * 3600.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Age:
    """How old is old enough."""

    now_ns: int
    idle_s: float

    def is_idle(self, path: str, at_least_s: float = 0.0) -> bool:
        mtime_ns = find_mtime_ns(path)
        return mtime_ns is None or self.now_ns - mtime_ns >= max(self.idle_s, at_least_s) * _NS


def reclaim_leftovers(root: str, *, idle_s: float = 0.0, now_ns: int | None = None) -> int:
    """Remove what nobody needs any more below ``root``; says what that freed of the disk, in bytes.

    Args:
        root: the tier's folder.
        idle_s: what was written since is left alone, however dead its writer: it may be about to be resumed.
        now_ns: the time, as ``time.time_ns`` tells it.

    What this user may not read or remove is left alone.

    Raises:
        StoreError: the root cannot be read.
    """
    age = _Age(time.time_ns() if now_ns is None else now_ns, idle_s)
    freed_bytes = 0
    for repo, layout in list_repos(root):
        with contextlib.suppress(StoreError):  # another user's, to be sure; the other repos do not wait for him
            freed_bytes += finish_removals(layout)
            freed_bytes += _reclaim_staged(layout, age)
            if not is_being_brought(root, repo):
                freed_bytes += _reclaim_headless(layout, age)
                _remove_if_empty(layout)
    remove_emptied(root)
    return freed_bytes + _reclaim_made(root, age)


def _reclaim_made(root: str, age: _Age) -> int:
    """What ``bench`` made to measure with, and was killed before it removed it."""
    freed_bytes = 0
    for name in list_folder(lease_folder(root)):
        path = os.path.join(lease_folder(root), name)
        if name.startswith(BENCH_PREFIX) and age.is_idle(path, _ABANDONED_S):
            freed_bytes += count_disk_bytes(path)
            _remove_any(path)
    return freed_bytes


def _remove_if_empty(layout: RepoLayout) -> None:
    if not list_snapshots(layout):
        remove_empty(layout)


def _reclaim_staged(layout: RepoLayout, age: _Age) -> int:
    area = StagingArea(layout.ours())
    freed_bytes = 0
    journals = list_folder(area.journals)
    for name in journals:
        with _is_leftover(layout, area, name, age) as is_leftover:
            if is_leftover:
                freed_bytes += count_disk_bytes(area.part(name))
                area.remove(name)
    for name in set(list_folder(area.parts)).difference(journals):
        # Without a journal nobody can go on with it: a folder or a small file that was about to be renamed, or the
        # removal of another user who does not come back to it.
        may_go = has_nobody(layout, name) or not is_grave(name)
        if may_go and age.is_idle(area.part(name), _ABANDONED_S):
            freed_bytes += count_disk_bytes(area.part(name))
            _remove_any(area.part(name))
    return freed_bytes


@contextmanager
def _is_leftover(layout: RepoLayout, area: StagingArea, name: str, age: _Age) -> Iterator[bool]:
    """True if what was staged as ``name`` may go; meanwhile nobody else takes it over."""
    path = area.journal(name)
    try:
        journal = open_lock(path)
    except OSError:
        yield False
        return
    try:
        is_free = try_exclusive(journal)
        is_published = os.path.lexists(layout.blob(name.rpartition(".")[0]))
        is_abandoned = age.is_idle(area.part(name), _ABANDONED_S) and age.is_idle(path, _ABANDONED_S)
        boot_id = _read_boot(journal)
        # A kernel that does not say (gVisor) is anyone's.
        is_dead = bool(boot_id) and boot_id == read_boot_id() and flock_is_truthful(path)
        yield is_free and (is_published or is_abandoned or (is_dead and age.is_idle(path)))
    finally:
        os.close(journal)


def _read_boot(journal: int) -> str | None:
    """The boot in which the journal was begun."""
    try:
        boot_id = read_boot(journal)
    except OSError:
        return None
    return boot_id if isinstance(boot_id, str) else None


def _reclaim_headless(layout: RepoLayout, age: _Age) -> int:
    """Manifests of which there is no snapshot, with the blobs that they alone name: neither published nor removed."""
    freed_bytes = 0
    there = set(list_snapshots(layout))
    for name in list_folder(layout.ours("manifests")):
        commit = name.removesuffix(".json")
        used_ns = read_used_ns(layout, commit)
        if commit in there or used_ns is None or age.now_ns - used_ns < age.idle_s * _NS:
            continue
        with held_alone(layout, commit) as use:
            if use is not Use.HELD and not os.path.lexists(layout.snapshot(commit)):
                freed_bytes += remove_snapshot(layout, commit)
    return freed_bytes


def _remove_any(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        os.unlink(path)
    except OSError:  # gone, or somebody else's
        return
