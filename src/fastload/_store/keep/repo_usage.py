"""What one repo holds, and what removing a snapshot of it frees: pure, of what a scan has found.

What is removed is found here for both, for who removes (:mod:`~fastload._store.keep.removal`) and for who says
beforehand what that would free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from collections.abc import Set as AbstractSet

    from fastload._store.layout import RepoLayout


def find_buried(named: AbstractSet[str], there: Collection[str], needed: AbstractSet[str]) -> set[str]:
    """The blobs that go with a snapshot.

    Args:
        named: those that it names, by its links or by its manifest.
        there: the names in ``blobs/``; another tool writes ``<blob>.<id>.incomplete`` there, and has it published soon.
        needed: those that somebody else needs.
    """
    being_written = {name.partition(".")[0] for name in there if name.endswith(".incomplete")}
    return {name for name in there if name in named} - needed - being_written


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoUsage:
    """One repo on one tier."""

    repo: str
    layout: RepoLayout
    links: Mapping[str, frozenset[str]]
    """By snapshot: the blobs that it needs."""
    own_bytes: Mapping[str, int]
    """By snapshot: what its files that are no links take of the disk."""
    blob_bytes: Mapping[str, int]
    """By blob: what the disk has more once it is removed."""
    staged_bytes: int
    """What files on their way in take."""
    told: Mapping[str, frozenset[str]]
    """By snapshot that fastload brought, all others being other tools': what its manifest calls its blobs."""

    @property
    def brought(self) -> frozenset[str]:
        """The snapshots that fastload brought."""
        return frozenset(self.told)

    def count_freed_bytes(self, commit: str, gone: Iterable[str] = ()) -> int:
        """What removing ``commit`` frees, once the snapshots ``gone`` were removed before it."""
        others = self.links.keys() - {commit, *gone}
        # What only the manifest names has gone with the first of them that named it; what is linked to, with the last.
        alone = self.told.get(commit, frozenset()).difference(*(self._find_named(each) for each in gone))
        named = self.links[commit] | alone
        return self._count(find_buried(named, self.blob_bytes, self.find_needed(others))) + self.own_bytes[commit]

    def count_kept_bytes(self) -> int:
        """What fastload keeps there; what another tool's snapshot needs too is not counted, since it would stay."""
        ours = self.find_needed(self.brought) - self.find_needed(self.links.keys() - self.brought)
        return self._count(ours) + sum(self.own_bytes[commit] for commit in self.brought) + self.staged_bytes

    def without(self, gone: Collection[str]) -> RepoUsage:
        """The same repo once the snapshots ``gone`` are removed, as far as what is kept goes."""
        return replace(
            self,
            links={commit: blobs for commit, blobs in self.links.items() if commit not in gone},
            told={commit: blobs for commit, blobs in self.told.items() if commit not in gone},
        )

    def find_needed(self, commits: Iterable[str]) -> frozenset[str]:
        """The blobs that any of the snapshots ``commits`` needs."""
        return frozenset().union(*(self.links[commit] for commit in commits))

    def _find_named(self, commit: str) -> frozenset[str]:
        return self.links[commit] | self.told.get(commit, frozenset())

    def _count(self, blobs: Iterable[str]) -> int:
        return sum(self.blob_bytes.get(blob, 0) for blob in blobs)
