"""What ``fastload ls`` shows: every snapshot on every tier that is a folder."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from fastload._fetch.find.resolve import tiers_of
from fastload._store.keep.disk import find_mtime_ns
from fastload._store.keep.mark import find_damaged
from fastload._store.keep.pin import is_pinned
from fastload._store.keep.usage import is_brought, read_used_ns
from fastload._store.listing import list_files
from fastload._store.patience import ask_all
from fastload._store.repo_refs import list_refs
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._store.root import Root
    from fastload._store.stored import Stored
    from fastload.options import Settings

State = Literal["complete", "plain", "incomplete", "damaged"]

_PATIENCE_S = 4.5
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """One snapshot on one tier."""

    tier: str
    """``local`` or ``shared:<root>``."""
    repo: str
    commit: str | None
    """None for a plain folder that says of no commit."""
    revisions: tuple[str, ...]
    """The branches and tags that mean it there."""
    path: str
    bytes: int
    """Of all its files; other snapshots may share them."""
    state: State
    """``complete``; ``plain``: a folder outside the hub's layout, and complete; ``incomplete``; or ``damaged``."""
    details: tuple[str, ...]
    """Of ``incomplete``: what is missing, in phrases for people. Of ``damaged``: the files of which nobody had the
    right bytes when they were last found wrong. Else none."""
    evidence: str
    brought_by_fastload: bool
    pinned: bool
    used_at: datetime | None
    """When fastload last used or brought it, in UTC; None: not known."""
    age_s: float
    """Since the folder came to be."""

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types: ``used_at`` is ``used``, as ISO 8601."""
        facts = {**asdict(self), "revisions": list(self.revisions), "details": list(self.details)}
        used_at = facts.pop("used_at")
        return {**facts, "used": used_at.isoformat(timespec="seconds") if used_at else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the tiers have, and which of them did not say."""

    snapshots: tuple[SnapshotFacts, ...]
    unavailable: tuple[tuple[str, str], ...]
    """Tiers and reasons; a tier of which only a part could not be read is among them, with that part."""

    def __iter__(self) -> Iterator[SnapshotFacts]:
        return iter(self.snapshots)

    def __len__(self) -> int:
        return len(self.snapshots)

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return {
            "schema": 1,
            "snapshots": [each.to_dict() for each in self.snapshots],
            "unavailable": [{"tier": tier, "reason": reason} for tier, reason in self.unavailable],
        }


def list_tiers(settings: Settings) -> Listing:
    """Ask all tiers that are folders. The local one is read first; no mount can delay it."""
    tiers = tiers_of(settings)
    found: list[Listing] = []
    if tiers.local is not None:
        try:
            found.append(_list_root(tiers.local))
        except StoreError as exc:
            found.append(Listing(snapshots=(), unavailable=((str(tiers.local.tier), exc.reason),)))
    answers = ask_all(tiers.shared, _list_root, patience_s=_PATIENCE_S)
    found += [listing for _, listing in answers.replies]
    silent = tuple((str(root.tier), reason) for root, reason in answers.silent)
    return Listing(
        snapshots=tuple(facts for listing in found for facts in listing),
        unavailable=(*(each for listing in found for each in listing.unavailable), *silent),
    )


def _list_root(root: Root) -> Listing:
    now_ns = time.time_ns()
    unread: list[StoreError] = []
    found = tuple(_describe(stored, root, now_ns) for stored in root.list_all(unread.append))
    return Listing(
        snapshots=found, unavailable=tuple((str(root.tier), f"{error.path}: {error.reason}") for error in unread)
    )


def _describe(stored: Stored, root: Root, now_ns: int) -> SnapshotFacts:
    is_ours = is_held = False
    revisions: list[str] = []
    used_ns = None
    if isinstance(stored, CachedSnapshot):
        layout, commit = stored.layout, stored.commit
        revisions = sorted(revision for revision, meant in list_refs(layout).items() if meant == commit)
        is_ours, is_held = is_brought(root.path, layout, commit), is_pinned(layout, commit)
        used_ns = read_used_ns(layout, commit)
    state, details = _judge(stored)
    return SnapshotFacts(
        tier=str(stored.tier),
        repo=stored.repo,
        commit=stored.commit,
        revisions=tuple(revisions),
        path=stored.folder,
        bytes=_count_bytes(stored.folder),
        state=state,
        details=details,
        evidence=stored.judged_by.value,
        brought_by_fastload=is_ours,
        pinned=is_held,
        used_at=datetime.fromtimestamp(used_ns / _NS, UTC) if used_ns else None,
        age_s=max(0.0, (now_ns - (find_mtime_ns(stored.folder) or now_ns)) / _NS),
    )


def _judge(stored: Stored) -> tuple[State, tuple[str, ...]]:
    if not stored.is_complete:
        return "incomplete", stored.missing
    if isinstance(stored, PlainFolder):
        return "plain", ()
    damaged = find_damaged(stored.layout, stored.commit)
    return ("damaged", damaged) if damaged else ("complete", ())


def _count_bytes(folder: str) -> int:
    try:
        return sum(file.size for file in list_files(folder))
    except (FormatError, StoreError):  # removed since it was found
        return 0
