"""What a tier that is a folder has of a model: a snapshot in the hub's cache layout, or a plain folder.

Both say where the files are and what of them is missing. What there is only in a cache (blobs that are called by their
digests, a place for manifests and stamps, a commit in any case) only :class:`CachedSnapshot` has.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from fastload._verify.evidence_kind import EvidenceKind

if TYPE_CHECKING:
    from fastload._store.layout import RepoLayout
    from fastload._tier import Tier


class JudgedBy(StrEnum):
    """What says that a copy is complete, or not. Of the bytes it says nothing: that is :class:`EvidenceKind`'s."""

    MANIFEST = "manifest"
    LISTING = "listing"
    """The hub's, as its client has noted it."""
    STRUCTURE = "structure"
    """The files themselves: an index names the shards, a shard's header says how long it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedSnapshot:
    """A snapshot in the hub's cache layout, complete or not."""

    tier: Tier
    repo: str
    commit: str
    folder: str
    layout: RepoLayout
    judged_by: JudgedBy
    missing: tuple[str, ...]
    named_by: ClassVar[EvidenceKind] = EvidenceKind.SHA256
    """What kind of digest the tier itself has of its files: the names of their blobs."""

    @property
    def noted_commit(self) -> str:
        """Whose copies may have right what is wrong here."""
        return self.commit

    @property
    def is_complete(self) -> bool:
        """True if nothing is missing by what it was judged by."""
        return not self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainFolder:
    """A folder with a model, which belongs to whoever put it there."""

    tier: Tier
    repo: str
    commit: str | None
    """None where it says of no commit, or nobody asked it for one: it may have been changed since."""
    folder: str
    missing: tuple[str, ...]
    noted_commit: str | None = None
    """The one that all notes of downloads in it name: another copy of it may have right what is wrong here."""
    is_damaged: bool = False
    """True if what is missing is so by a manifest beside the files: that is damage, and no model that is not there."""
    judged_by: ClassVar[JudgedBy] = JudgedBy.STRUCTURE
    named_by: ClassVar[EvidenceKind] = EvidenceKind.ETAG
    """The same as of a snapshot: here, what ``hf download --local-dir`` has noted of them."""

    @property
    def is_complete(self) -> bool:
        """True if nothing is missing by its structure."""
        return not self.missing


Stored = CachedSnapshot | PlainFolder
