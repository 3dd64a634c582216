"""From settings to tiers, and from a name to the copy that serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._format.select import by_rule
from fastload._read.head import read_header
from fastload._store.complete import find_missing_of_plain
from fastload._store.directory import find_files
from fastload._store.listing import list_files
from fastload._store.ref import Name, parse_ref
from fastload._store.root import Root
from fastload._store.tiered import Search, Tiers, search
from fastload._tier import LOCAL, PATH, TierKind, shared_tier
from fastload.errors import StoreError, UsageError

if TYPE_CHECKING:
    import os

    from fastload._store.stored import Stored
    from fastload.options import Settings
    from fastload.report import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Where a model is."""

    path: str
    """The absolute folder."""
    repo: str | None
    """None for a path."""
    commit: str | None
    tier: str
    """``local``, ``shared:<root>``, ``hub`` or ``path``."""
    complete: bool
    """False only of a folder given by its path, or that is damaged: else a name means what is complete."""
    report: Report | None = None
    """What bringing it up took, where something was brought up."""


def tiers_of(settings: Settings) -> Tiers:
    """The folders that may be asked, by the settings."""
    local = Root(settings.local, LOCAL) if TierKind.LOCAL in settings.tiers else None
    shared = settings.shared if TierKind.SHARED in settings.tiers else ()
    return Tiers(local=local, shared=tuple(Root(path, shared_tier(path)) for path in shared))


def parse_model(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> str | Name:
    """The absolute path or the name that ``model`` means.

    Raises:
        UsageError: it is neither, or a moving name where ``require_pinned`` wants a commit.
    """
    parsed = parse_ref(model, revision, settings.aliases)
    if settings.require_pinned and isinstance(parsed, Name):
        moving = [candidate for candidate in parsed.candidates if not candidate.is_pinned]
        if moving:
            hint = "Write name@commit, with the 40 hex digits that fastload resolve --json shows"
            raise UsageError(f"{parsed.text!r} names no commit, and require_pinned is set", hint)
    return parsed


def resolve(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> Snapshot:
    """Where ``model`` is; asks folders only, never the network.

    Raises:
        ModelNotFoundError: no tier has it complete.
        FormatError, StoreError: as :func:`resolve_path` says.
        UsageError: it is no name and no path.
    """
    parsed = parse_model(model, revision, settings)
    if isinstance(parsed, str):
        return resolve_path(parsed)
    return snapshot_of(require(search(parsed, tiers_of(settings))))


def require(found: Search) -> Stored:
    """The copy that was found; where none is complete, one that is damaged, of which whoever reads it says what.

    Raises:
        ModelNotFoundError: there is none.
    """
    stored = found.found or found.damaged
    if stored is None:
        raise found.miss()
    return stored


def snapshot_of(stored: Stored) -> Snapshot:
    """The public form of what a tier has."""
    return Snapshot(
        path=stored.folder,
        repo=stored.repo,
        commit=stored.commit,
        tier=str(stored.tier),
        complete=stored.is_complete,
    )


def resolve_path(path: str) -> Snapshot:
    """A path is where it is; of its weights no more is read than headers, by which they are whole.

    It is not complete where a folder has more than a load takes, and something of that is missing or cannot be looked
    at, or a download is under way.

    Raises:
        ModelNotFoundError, FormatError, StoreError: there is no checkpoint, or a shard of it is not whole.
    """
    files = find_files(path, subfolder=None, select=by_rule())
    for _, shard in files.shards:
        read_header(shard)
    is_complete = files.is_chosen or _is_whole(files.folder)
    return Snapshot(path=files.folder, repo=None, commit=None, tier=str(PATH), complete=is_complete)


def _is_whole(folder: str) -> bool:
    """False also where that cannot be told, as beside a ``lost+found`` that only root may open."""
    try:
        return not any(find_missing_of_plain(folder, list_files(folder)))
    except StoreError:
        return False
