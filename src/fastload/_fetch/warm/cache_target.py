"""A cache as the target of a warm: a tier, or any folder in the hub's layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.find.find_meant import find_meant
from fastload._fetch.find.resolve import snapshot_of
from fastload._fetch.warm.target import Room
from fastload._store.admit.destination import CacheDestination
from fastload._store.admit.reference import leads_to, write_ref
from fastload._store.admit.remains import Leased
from fastload._store.keep.listed import mark_listed
from fastload._store.layout import RepoLayout, lease_folder, repo_folder
from fastload._store.repo_refs import read_commit
from fastload._store.stored import CachedSnapshot, JudgedBy
from fastload._tier import LOCAL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastload._fetch.find.meant import Meant
    from fastload._fetch.find.resolve import Snapshot
    from fastload._store.hub.tier import HubTier
    from fastload._store.lease.holder import Holder
    from fastload._store.ref import Name
    from fastload._store.root import Root
    from fastload._store.tiered import Tiers
    from fastload._store.wanted import Wish
    from fastload._tier import Tier


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """See :class:`~fastload._fetch.warm.target.Target`."""

    root: Root
    wish: Wish

    @property
    def path(self) -> str:
        """The root of the cache."""
        return self.root.path

    @property
    def own_tier(self) -> Tier:
        """The tier that the cache is."""
        return self.root.tier

    @property
    def room(self) -> Room:
        """Only what is on the local tier was brought to be thrown away again."""
        return Room(self.root.path, evicts=self._is_local)

    @property
    def _is_local(self) -> bool:
        return self.root.tier == LOCAL

    def find(self, name: Name, tiers: Tiers, hub: HubTier | None) -> Meant:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        return find_meant(name, tiers, self.root, hub)

    def destination(self, meant: Meant) -> CacheDestination:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        return CacheDestination(self._layout(meant))

    def leased(self, meant: Meant) -> Leased:
        """See :class:`~fastload._fetch.warm.target.Target`: one for all commits of the repo."""
        return Leased(lease_folder(self.root.path), meant.repo.replace("/", "--"), self.destination(meant).area)

    def find_held(self, meant: Meant, is_unchanged: Callable[[str], bool]) -> str | None:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        commit = meant.commit or self._find_plain_commit(meant, is_unchanged)
        if commit is None:
            return None
        is_met = self.destination(meant).is_met(commit, self.wish, must_be_sure=meant.hub is not None)
        return commit if is_met else None

    def _find_plain_commit(self, meant: Meant, is_unchanged: Callable[[str], bool]) -> str | None:
        """The commit under which a plain folder was brought, if the folder has not changed since."""
        layout = self._layout(meant)
        commit = read_commit(layout, meant.candidate.moving_revision)
        return commit if commit is not None and is_unchanged(layout.stamp(commit)) else None

    def leads_to(self, meant: Meant, commit: str) -> bool:
        """See :class:`~fastload._fetch.warm.target.Target`: by the ref of a moving revision."""
        return leads_to(self._layout(meant), meant.candidate.moving_revision, commit)

    def point(self, meant: Meant, commit: str, at_look: Callable[[Holder], None]) -> None:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        write_ref(self._layout(meant), meant.candidate.moving_revision, commit, tell=at_look)

    def mark_listed(self, meant: Meant, commit: str, list_path: str) -> None:
        """See :class:`~fastload._fetch.warm.target.Target`. From other tiers nothing is taken away."""
        if self._is_local:
            mark_listed(self._layout(meant), commit, list_path)

    def folder(self, meant: Meant, commit: str | None) -> str | None:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        return self._layout(meant).snapshot(commit) if commit is not None else None

    def list_replaced(self) -> Collection[str]:
        """See :class:`~fastload._fetch.warm.target.Target`: of a commit there is one content, which is added to."""
        return ()

    def stored(self, meant: Meant, commit: str) -> CachedSnapshot:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        layout = self._layout(meant)
        return CachedSnapshot(
            tier=self.root.tier,
            repo=meant.repo,
            commit=commit,
            folder=layout.snapshot(commit),
            layout=layout,
            judged_by=JudgedBy.MANIFEST,
            missing=(),
        )

    def snapshot(self, meant: Meant, commit: str) -> Snapshot:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        return snapshot_of(self.stored(meant, commit))

    def _layout(self, meant: Meant) -> RepoLayout:
        return RepoLayout(repo_folder(self.root.path, meant.repo))
