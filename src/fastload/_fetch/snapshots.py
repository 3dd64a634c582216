"""What is kept where, and taking it away: ``snapshots``, ``remove``, ``prune``, ``pin`` and ``unpin``.

Listing looks at all tiers; everything that changes something does so on the local tier alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.facts import Listing, list_tiers
from fastload._store.evict import Kept, evict, plan_evictions
from fastload._store.inuse import Use, held_alone, is_being_brought
from fastload._store.layout import RepoLayout, repo_folder
from fastload._store.leftovers import reclaim_leftovers
from fastload._store.pin import is_pinned
from fastload._store.pin import pin as set_pin
from fastload._store.pin import unpin as remove_pin
from fastload._store.ref import Name, parse_ref
from fastload._store.removal import remove_snapshot
from fastload._store.root import Root, list_refs, read_commit
from fastload._store.usage import count_kept_bytes, list_snapshots
from fastload.errors import ModelNotFoundError, UsageError
from fastload.options import Options, decide_settings

if TYPE_CHECKING:
    import os

    from fastload.options import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A snapshot that is gone, or that a dry run would remove."""

    repo: str
    commit: str
    freed_bytes: int
    """Of the disk: blobs that another snapshot needs stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What pruning did, or would do."""

    removed: tuple[Removed, ...]
    reclaimed_bytes: int
    """Freed of what dead writers and interrupted removals had left."""
    kept_bytes: int
    """What fastload keeps on the local tier now."""
    max_bytes: int | None
    """What it was to be brought down to."""


@dataclass(frozen=True, slots=True)
class _Local:
    """One snapshot on the local tier, in the hub's layout."""

    repo: str
    commit: str
    layout: RepoLayout

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit}"


def snapshots(*, options: Options | None = None) -> Listing:
    """Every snapshot on every tier that may be asked and is a folder; iterates over them.

    A shared tier that does not answer within five seconds is named in ``.unavailable`` instead, and delays nothing
    else.

    Args:
        options: settings.

    Raises:
        UsageError: a setting that cannot be meant.
    """
    return list_tiers(decide_settings(options, {}))


def remove(model: str | os.PathLike[str], *, revision: str | None = None, options: Options | None = None) -> Removed:
    """Remove a snapshot from the local tier, whoever brought it: the one that ``refs/main`` or the revision means.

    Blobs that another snapshot needs stay.

    Args:
        model: ``org/name``, ``org/name@revision``, an alias, or the name of a folder that was brought.
        revision: a branch, tag or commit, where the name does not say one.
        options: settings.

    Raises:
        ModelNotFoundError: the local tier does not have it.
        UsageError: it is in use or pinned; or no name at all; or a plain folder, which is not fastload's to remove.
        NotWritableError, StoreError: it cannot be removed.
    """
    settings = decide_settings(options, {})
    local = _find_local(model, revision, settings)
    if is_pinned(local.layout, local.commit):
        raise UsageError(f"{local} is pinned", f"To remove it nevertheless, run first: fastload unpin {local}")
    if is_being_brought(settings.local, local.repo):
        raise UsageError(f"{local} is in use: {local.repo} is being brought in", "Wait for that, or end it")
    with held_alone(local.layout, local.commit) as use:
        if use is Use.HELD:
            raise UsageError(f"{local} is in use: somebody reads it", "Wait until it is loaded, or end who loads it")
        freed_bytes = remove_snapshot(local.layout, local.commit)
    return Removed(repo=local.repo, commit=local.commit, freed_bytes=freed_bytes)


def prune(*, max_bytes: int | None = None, is_dry_run: bool = False, options: Options | None = None) -> Pruned:
    """Bring what fastload keeps on the local tier down to a size: leftovers go, then the least recently used.

    What another tool brought stays, as does what is pinned, in use, or was used in the last ten minutes.

    Args:
        max_bytes: down to what; None: the setting ``local_max_bytes``, and where that is not set either, only
            leftovers go.
        is_dry_run: say what would go, remove nothing.
        options: settings.

    Raises:
        UsageError: a setting that cannot be meant.
        NotWritableError, StoreError: something cannot be read or removed.
    """
    settings = decide_settings(options, {})
    root = _local_root(settings)
    limit_bytes = settings.local_max_bytes if max_bytes is None else max_bytes
    reclaimed_bytes = 0 if is_dry_run else reclaim_leftovers(root)
    kept_bytes = count_kept_bytes(root)
    wanted_bytes = 0 if limit_bytes is None else kept_bytes - limit_bytes
    removed: list[Kept] = []
    if wanted_bytes > 0:
        removed = (plan_evictions if is_dry_run else evict)(root, wanted_bytes)
    return Pruned(
        removed=tuple(Removed(repo=each.repo, commit=each.commit, freed_bytes=each.nbytes) for each in removed),
        reclaimed_bytes=reclaimed_bytes,
        kept_bytes=kept_bytes - sum(each.nbytes for each in removed),
        max_bytes=limit_bytes,
    )


def pin(model: str | os.PathLike[str], *, revision: str | None = None, options: Options | None = None) -> str:
    """Keep a snapshot of the local tier from being evicted, whoever brought it; returns ``repo@commit``.

    Args:
        model: as for :func:`remove`.
        revision: as for :func:`remove`.
        options: settings.

    Raises:
        ModelNotFoundError: the local tier does not have it.
        UsageError: it is no name; or a plain folder, which is never evicted.
        NotWritableError, StoreError: it cannot be written.
    """
    local = _find_local(model, revision, decide_settings(options, {}))
    set_pin(local.layout, local.commit)
    return str(local)


def unpin(model: str | os.PathLike[str], *, revision: str | None = None, options: Options | None = None) -> str:
    """Let a snapshot of the local tier be evicted again; returns ``repo@commit``.

    Args and Raises: as for :func:`pin`.
    """
    local = _find_local(model, revision, decide_settings(options, {}))
    remove_pin(local.layout, local.commit)
    return str(local)


def _local_root(settings: Settings) -> str:
    if "local" not in settings.tiers:
        raise UsageError("the local tier may not be asked (tiers)", "Add local to the setting tiers")
    return settings.local


def _find_local(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> _Local:
    """The snapshot that ``model`` means on the local tier, complete or not: the first candidate's that is there."""
    root = Root(_local_root(settings), label="local")
    name = parse_ref(model, revision, settings.aliases)
    if isinstance(name, str):
        raise UsageError(f"{name!r} is a path", "Give the name of a model, as 'fastload ls' shows it")
    for candidate in name.candidates:
        layout = RepoLayout(repo_folder(root.path, candidate.repo))
        commit = read_commit(layout, candidate.revision)
        if commit is not None and commit in list_snapshots(layout):
            return _Local(candidate.repo, commit, layout)
        plain = root.find(candidate, is_alias=name.is_alias)
        if plain is not None and plain.layout is None:
            hint = "fastload keeps its hands off it: it is never evicted, and needs no pin. Remove it yourself"
            raise UsageError(f"{plain.folder!r} is a plain folder", hint)
    raise ModelNotFoundError(name.text, (root.path,), _name_others(name, root))


def _name_others(name: Name, root: Root) -> str:
    """What else there is of the repo: without a ref that leads to it, a snapshot has its commit for a name only."""
    others: list[str] = []
    for candidate in name.candidates:
        layout = RepoLayout(repo_folder(root.path, candidate.repo))
        refs = list_refs(layout)
        others += [f"{candidate.repo}@{revision}" for revision in sorted(refs)]
        others += [f"{candidate.repo}@{commit}" for commit in list_snapshots(layout) if commit not in refs.values()]
    return f"There is: {', '.join(others[:8])}" if others else "'fastload ls' shows what is there"
