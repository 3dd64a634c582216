"""What a snapshot is warmed into, a cache or a folder of real files: all that differs between the two.

Each of them says which snapshot a name means there, whether it is held already, where it is staged and published and
under which lease, what leads to it afterwards, and how it is called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from fastload._fetch.find.meant import Meant
    from fastload._fetch.find.resolve import Snapshot
    from fastload._store.admit.destination import Destination
    from fastload._store.admit.remains import Leased
    from fastload._store.hub.tier import HubTier
    from fastload._store.lease.holder import Holder
    from fastload._store.ref import Name
    from fastload._store.root import Root
    from fastload._store.stored import Stored
    from fastload._store.tiered import Tiers
    from fastload._tier import Tier


@dataclass(frozen=True, slots=True)
class Room:
    """What a snapshot takes room of."""

    folder: str
    evicts: bool
    """True if older snapshots below the folder may make room."""


class Target(Protocol):
    """Takes the snapshot of one warm."""

    @property
    def root(self) -> Root:
        """The tier that is asked first for what a name means."""

    @property
    def path(self) -> str:
        """Where it is, as a plan says it."""

    @property
    def own_tier(self) -> Tier | None:
        """The tier whose copies lie where they would be brought to; None: it is none."""

    @property
    def room(self) -> Room:
        """Whose room is taken."""

    def find(self, name: Name, tiers: Tiers, hub: HubTier | None) -> Meant:
        """The snapshot that ``name`` means here; of ``tiers`` the folders may be asked, and ``hub`` the network.

        Raises:
            UsageError: it means the target itself, which is not known to be whole.
            ModelNotFoundError, HubError: as :func:`~fastload._fetch.find.find_meant.find_meant` says.
        """

    def destination(self, meant: Meant) -> Destination:
        """What takes its files."""

    def leased(self, meant: Meant) -> Leased:
        """The lease of whoever brings it."""

    def find_held(self, meant: Meant, is_unchanged: Callable[[str], bool]) -> str | None:
        """Its commit, if the target has it by a manifest, with all that is wished for.

        Args:
            meant: of a plain folder, no commit is known.
            is_unchanged: whether that folder is still as the stamp at a path says.
        """

    def leads_to(self, meant: Meant, commit: str) -> bool:
        """True if what was asked for leads to ``commit`` by now."""

    def point(self, meant: Meant, commit: str, at_look: Callable[[Holder], None]) -> None:
        """Let what was asked for lead to ``commit``, which is there.

        ``at_look`` is called with whom this waits for; what it raises ends the wait.
        """

    def mark_listed(self, meant: Meant, commit: str, list_path: str) -> None:
        """``commit`` came new, by the list of a resident warmer, which may take away again what it brought."""

    def folder(self, meant: Meant, commit: str | None) -> str | None:
        """Where it will lie; None if that follows from a commit that is not known yet."""

    def list_replaced(self) -> Collection[str]:
        """The paths of what goes from there when something else is brought to it."""

    def stored(self, meant: Meant, commit: str) -> Stored:
        """What is there by that commit."""

    def snapshot(self, meant: Meant, commit: str) -> Snapshot:
        """What it is called when it is there."""
