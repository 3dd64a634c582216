"""What was left behind: by removals that were broken off, and by writers that died on their way.

A staged file is worth its bytes to whoever brings the same content next, so it goes only where nobody can come back to
it and nobody needs it any more: its content is published by now, its writer provably died in this boot, or nobody has
touched it for a day.

Here it is found, and nothing is changed: what a dry run says is what a run then goes through, each looked at once more
(:mod:`~fastload._store.keep.reclaim`). What goes first may decide about what comes next: a blob that goes with a
removal is not published any more.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from fastload._store.admit.area import StagingArea
from fastload._store.admit.journal import read_boot
from fastload._store.keep.disk import count_disk_bytes, find_mtime_ns, list_folder
from fastload._store.keep.grave import find_site, has_nobody, is_grave
from fastload._store.keep.removal import find_named_in
from fastload._store.keep.repo_usage import find_buried
from fastload._store.keep.usage import (
    find_linked_blobs,
    find_needed_blobs,
    find_told_blobs,
    list_repos,
    list_snapshots,
    read_used_ns,
)
from fastload._store.layout import BENCH_PREFIX, lease_folder
from fastload._store.lease.inuse import Use, held_alone, is_being_brought
from fastload._store.lease.lock import flock_is_truthful, open_lock, try_exclusive
from fastload._system_file import read_boot_id
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

    from fastload._store.keep.grave import Site
    from fastload._store.keep.repo_usage import RepoUsage
    from fastload._store.layout import RepoLayout

ABANDONED_S = 24 * 3600.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Age:
    """How old is old enough."""

    now_ns: int
    idle_s: float
    """What was written since is left alone, however dead its writer: it may be about to be resumed."""

    def is_idle(self, path: str, at_least_s: float = 0.0) -> bool:
        """True if nobody has written ``path`` for so long, or it is gone."""
        mtime_ns = find_mtime_ns(path)
        return mtime_ns is None or self.now_ns - mtime_ns >= max(self.idle_s, at_least_s) * _NS


class Why(Enum):
    """What a leftover is, and so why it may go."""

    BROKEN_OFF = "a removal that was broken off"
    STAGED = "a file on its way in that nobody comes back to"
    LOOSE = "what was about to be renamed, a day ago"
    HEADLESS = "a manifest without its snapshot"


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that nobody needs any more."""

    why: Why
    name: str
    """In ``staging/`` or ``journals/``; of a manifest, its commit."""
    nbytes: int
    """What the disk has more once it is gone."""


@dataclass(frozen=True, slots=True)
class Clearing:
    """The leftovers of one repo, in the order in which they go, and what is different then."""

    repo: str
    layout: RepoLayout
    leftovers: tuple[Leftover, ...]
    staged_bytes: int
    """What goes from ``staging/``."""
    buried: frozenset[str]
    """Blobs that go, and that nobody needs; a manifest may name them nevertheless."""
    returned: Mapping[str, int]
    """Blobs that come back from a grave, since somebody needs them, with what they take of the disk."""

    def after(self, usage: RepoUsage) -> RepoUsage:
        """The ``usage`` of the repo once all of it is done."""
        left = {name: nbytes for name, nbytes in usage.blob_bytes.items() if name not in self.buried}
        return replace(usage, blob_bytes={**left, **self.returned}, staged_bytes=usage.staged_bytes - self.staged_bytes)


def find_leftovers(root: str, age: Age) -> Iterator[Clearing]:
    """What nobody needs any more below ``root``, repo by repo, each looked at in its turn.

    What this user may not read is left alone.

    Raises:
        StoreError: the root cannot be read.
    """
    for repo, layout in list_repos(root):
        yield _Search(root, repo, layout, age).search()


def find_made(root: str, age: Age) -> list[str]:
    """What ``bench`` made to measure with, and was killed before it removed it.

    Raises:
        StoreError: the folder cannot be read.
    """
    folder = lease_folder(root)
    paths = [os.path.join(folder, name) for name in list_folder(folder) if name.startswith(BENCH_PREFIX)]
    return [path for path in paths if age.is_idle(path, ABANDONED_S)]


class _Search:
    """In one repo, with what is known of its blobs once what was found so far is gone."""

    def __init__(self, root: str, repo: str, layout: RepoLayout, age: Age) -> None:
        self._root = root
        self._repo = repo
        self._layout = layout
        self._age = age
        self._area = StagingArea(layout.ours())
        self._buried: set[str] = set()
        self._returned: dict[str, int] = {}
        self._staged_bytes = 0

    def search(self) -> Clearing:
        """All of it; from where something cannot be read, nothing: another user's, to be sure."""
        found: list[Leftover] = []
        with suppress(StoreError):
            for kind in (self._find_broken_off, self._find_staged, self._find_loose, self._find_headless):
                found.extend(kind())
        return Clearing(
            self._repo, self._layout, tuple(found), self._staged_bytes, frozenset(self._buried), self._returned
        )

    @cached_property
    def _needed(self) -> set[str]:
        return find_needed_blobs(self._layout)

    def _has_blob(self, name: str) -> bool:
        return name in self._returned or (name not in self._buried and has_blob(self._layout, name))

    def _leave(self, why: Why, name: str, nbytes: int) -> Leftover:
        self._staged_bytes += count_disk_bytes(self._area.part(name))
        return Leftover(why, name, nbytes)

    def _find_broken_off(self) -> Iterator[Leftover]:
        for name in filter(is_grave, list_folder(self._area.parts)):
            site = find_site(self._layout, name)
            if site is not None:
                yield self._leave(Why.BROKEN_OFF, name, self._bury(site))
            elif os.path.islink(self._area.part(name)):
                yield Leftover(Why.BROKEN_OFF, name, 0)

    def _bury(self, site: Site) -> int:
        """What going on with it frees: what lies in the grave, and comes into it, but for what somebody needs."""
        freed_bytes = self._bury_blobs(find_named_in(self._layout, site))
        lying = [] if os.path.islink(site.blobs) else list_folder(site.blobs)
        linked = find_linked_blobs(self._layout) if lying else set()
        for name in lying:
            nbytes = count_disk_bytes(os.path.join(site.blobs, name))
            if name in linked and not self._has_blob(name):
                self._returned[name] = nbytes
            else:
                freed_bytes += nbytes
        return freed_bytes + count_disk_bytes(site.snapshot)

    def _bury_blobs(self, named: AbstractSet[str]) -> int:
        there = set(list_folder(self._layout.blobs)) - self._buried
        buried = find_buried(named, there, self._needed)
        self._buried |= buried
        return sum(count_disk_bytes(self._layout.blob(name)) for name in buried)

    def _find_staged(self) -> Iterator[Leftover]:
        for name in list_folder(self._area.journals):
            with forsaken(self._layout, name, self._age, self._has_blob) as is_leftover:
                may_go = is_leftover
            if may_go:
                yield self._leave(Why.STAGED, name, count_disk_bytes(self._area.part(name)))

    def _find_loose(self) -> Iterator[Leftover]:
        for name in list_folder(self._area.parts):
            if is_loose(self._layout, name, self._age) and find_site(self._layout, name) is None:
                yield self._leave(Why.LOOSE, name, count_disk_bytes(self._area.part(name)))

    def _find_headless(self) -> Iterator[Leftover]:
        if is_being_brought(self._root, self._repo):
            return
        there = set(list_snapshots(self._layout))
        for commit in (name.removesuffix(".json") for name in list_folder(self._layout.ours("manifests"))):
            with headless(self._layout, commit, self._age) as is_leftover:
                may_go = is_leftover and commit not in there
            if may_go:
                told = find_told_blobs(self._layout.manifest(commit))
                yield Leftover(Why.HEADLESS, commit, self._bury_blobs(told))


def has_blob(layout: RepoLayout, name: str) -> bool:
    """True if there is a blob of that name."""
    return name.strip(".") != "" and os.path.lexists(layout.blob(name))


@contextmanager
def forsaken(layout: RepoLayout, name: str, age: Age, is_blob: Callable[[str], bool]) -> Iterator[bool]:
    """True if what was staged as ``name`` may go; meanwhile nobody else takes it over.

    Args:
        layout: of the repo.
        name: of the journal, and of what it tells of.
        age: how old is old enough.
        is_blob: tells of a digest whether it is published.
    """
    area = StagingArea(layout.ours())
    part, path = area.part(name), area.journal(name)
    try:
        journal = open_lock(path)
    except OSError:
        yield False
        return
    try:
        is_free = try_exclusive(journal) and (os.path.islink(part) or not os.path.isdir(part))
        is_published = is_blob(name.rpartition(".")[0])
        is_abandoned = age.is_idle(part, ABANDONED_S) and age.is_idle(path, ABANDONED_S)
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


def is_loose(layout: RepoLayout, name: str, age: Age) -> bool:
    """True of what is staged without a journal, for a day: nobody can go on with it.

    A folder or a small file that was about to be renamed, or the removal of another user who does not come back to it.
    """
    area = StagingArea(layout.ours())
    may_go = has_nobody(layout, name) or not is_grave(name)
    return may_go and not os.path.lexists(area.journal(name)) and age.is_idle(area.part(name), ABANDONED_S)


@contextmanager
def headless(layout: RepoLayout, commit: str, age: Age) -> Iterator[bool]:
    """True if the manifest of ``commit`` has no snapshot: neither published nor removed. Meanwhile it is held."""
    used_ns = read_used_ns(layout, commit)
    if used_ns is None or age.now_ns - used_ns < age.idle_s * _NS:
        yield False
        return
    with held_alone(layout, commit) as use:
        yield use is not Use.HELD and not os.path.lexists(layout.snapshot(commit))
