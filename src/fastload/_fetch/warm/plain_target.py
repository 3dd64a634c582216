"""A folder of real files as the target of a warm: no ref leads to it, it is no tier, and nothing is evicted for it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fastload._fetch.find.beside import Beside, find_beside
from fastload._fetch.find.resolve import Snapshot
from fastload._fetch.warm.target import Room
from fastload._store.admit.destination import PlainDestination
from fastload._store.admit.remains import Leased
from fastload._store.stored import PlainFolder
from fastload._tier import PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastload._fetch.find.meant import Meant
    from fastload._store.hub.tier import HubTier
    from fastload._store.lease.holder import Holder
    from fastload._store.ref import Name
    from fastload._store.root import Root
    from fastload._store.tiered import Tiers
    from fastload._store.wanted import Wish


@dataclass(frozen=True, slots=True)
class PlainTarget:
    """See :class:`~fastload._fetch.warm.target.Target`."""

    path: str
    root: Root
    wish: Wish

    @property
    def own_tier(self) -> None:
        """None: whatever a tier has of it lies elsewhere."""

    @property
    def room(self) -> Room:
        """Nothing in the folder is fastload's to throw away."""
        return Room(self._plain.area.ours, evicts=False)

    def find(self, name: Name, tiers: Tiers, hub: HubTier | None) -> Meant:
        """See :class:`~fastload._fetch.warm.target.Target`. What is in place on a tier is not in the folder yet."""
        holds = self._plain.find_held(self.wish, must_be_sure=False)
        return replace(find_beside(name, Beside(self.path, holds, tiers, self.root), hub), in_place=None)

    def destination(self, meant: Meant) -> PlainDestination:
        """See :class:`~fastload._fetch.warm.target.Target`: one for whatever it shall hold."""
        return self._plain

    def leased(self, meant: Meant) -> Leased:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        area = self._plain.area
        return Leased(os.path.join(area.ours, "leases"), meant.repo.replace("/", "--"), area)

    def find_held(self, meant: Meant, is_unchanged: Callable[[str], bool]) -> str | None:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        plain = self._plain
        held = plain.find_held(self.wish, must_be_sure=meant.hub is not None)
        commit = held.commit if held is not None else None
        is_it = commit == meant.commit if meant.commit is not None else is_unchanged(plain.stamp)
        return commit if is_it else None

    def leads_to(self, meant: Meant, commit: str) -> bool:
        """See :class:`~fastload._fetch.warm.target.Target`: the path does, at any time."""
        return True

    def point(self, meant: Meant, commit: str, at_look: Callable[[Holder], None]) -> None:
        """See :class:`~fastload._fetch.warm.target.Target`. No moving revision leads to a folder."""

    def mark_listed(self, meant: Meant, commit: str, list_path: str) -> None:
        """See :class:`~fastload._fetch.warm.target.Target`. What is in the folder is the user's to remove."""

    def folder(self, meant: Meant, commit: str | None) -> str:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        return self.path

    def list_replaced(self) -> Collection[str]:
        """See :class:`~fastload._fetch.warm.target.Target`: what was brought there before."""
        return self._plain.list_brought()

    def stored(self, meant: Meant, commit: str) -> PlainFolder:
        """See :class:`~fastload._fetch.warm.target.Target`: as a path to the folder leads to it."""
        return PlainFolder(tier=PATH, repo=meant.repo, commit=None, folder=self.path, missing=())

    def snapshot(self, meant: Meant, commit: str) -> Snapshot:
        """See :class:`~fastload._fetch.warm.target.Target`."""
        return Snapshot(path=self.path, repo=meant.repo, commit=commit, tier=str(PATH), complete=True)

    @property
    def _plain(self) -> PlainDestination:
        return PlainDestination(self.path)
