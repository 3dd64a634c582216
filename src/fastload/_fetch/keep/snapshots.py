"""What is kept where, and taking it away: ``snapshots``, ``remove``, ``prune``, ``pin`` and ``unpin``.

Listing looks at all tiers; everything that changes something does so on the local tier alone. At the deadline, what
hangs is left behind on a thread of its own: should the tier answer after all, it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._fetch.deadline import Deadline
from fastload._fetch.find.local import find_local, local_root
from fastload._fetch.keep.facts import Listing, list_tiers
from fastload._settings.values import parse_size
from fastload._store.keep.pin import is_pinned
from fastload._store.keep.pin import pin as set_pin
from fastload._store.keep.pin import unpin as remove_pin
from fastload._store.keep.pruning import plan_pruning, prune_root
from fastload._store.keep.removal import remove_snapshot
from fastload._store.lease.inuse import Use, held_alone, is_being_brought
from fastload._store.ref import name_of
from fastload.errors import UsageError
from fastload.options import Options, decide_settings

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from fastload._store.layout import RepoLayout
    from fastload.options import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """A snapshot that is gone, or that a dry run would remove."""

    repo: str
    commit: str
    freed_bytes: int
    """Of the disk, by its files: blobs that another snapshot needs stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """The snapshot that was pinned, or unpinned; its ``str`` is ``repo@commit``."""

    repo: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What pruning did, or would do."""

    removed: tuple[Removed, ...]
    reclaimed_bytes: int
    """Freed of what dead writers and interrupted removals had left."""
    kept_bytes: int
    """What fastload keeps on the local tier then."""
    max_bytes: int | None
    """What it was to be brought down to."""


def snapshots(*, options: Options | None = None) -> Listing:
    """Every snapshot on every tier that may be asked and is a folder; iterates over them.

    A shared tier that does not answer within five seconds is named in ``.unavailable`` instead, and delays nothing
    else.

    Args:
        options: settings.

    Raises:
        UsageError: a setting that cannot be meant.
        DeadlineError: the setting ``deadline`` is over.
    """
    settings = decide_settings(options, {})
    return Deadline(settings.deadline, "listing snapshots").within(lambda: list_tiers(settings))


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
        DeadlineError: the setting ``deadline`` is over.
    """
    settings = decide_settings(options, {})
    deadline = Deadline(settings.deadline, f"removing {name_of(model)}")
    return deadline.within(lambda: _remove(model, revision, settings))


def _remove(model: str | os.PathLike[str], revision: str | None, settings: Settings) -> Removed:
    local = find_local(model, revision, settings)
    if is_pinned(local.layout, local.commit):
        raise UsageError(f"{local} is pinned", f"To remove it nevertheless, run first: fastload unpin {local}")
    if is_being_brought(settings.local, local.repo):
        raise UsageError(f"{local} is in use: {local.repo} is being brought in", "Wait for that, or end it")
    with held_alone(local.layout, local.commit) as use:
        if use is Use.HELD:
            raise UsageError(f"{local} is in use: somebody reads it", "Wait until it is loaded, or end who loads it")
        freed_bytes = remove_snapshot(local.layout, local.commit)
    return Removed(repo=local.repo, commit=local.commit, freed_bytes=freed_bytes)


def prune(*, max_bytes: int | str | None = None, dry_run: bool = False, options: Options | None = None) -> Pruned:
    """Bring what fastload keeps on the local tier down to a size: leftovers go, then the least recently used.

    What another tool brought stays, as does what is pinned, in use, or was used in the last ten minutes.

    Args:
        max_bytes: down to what, such as ``500Gi``; None: the setting ``local_max_bytes``, and where that is not
            set either, only leftovers go.
        dry_run: say what would go, leftovers included, and remove nothing.
        options: settings.

    Raises:
        UsageError: a setting that cannot be meant.
        NotWritableError, StoreError: something cannot be read or removed.
        DeadlineError: the setting ``deadline`` is over.
    """
    settings = decide_settings(options, {})
    root = local_root(settings)
    limit_bytes = settings.local_max_bytes if max_bytes is None else parse_size(max_bytes)
    deadline = Deadline(settings.deadline, "pruning")
    pruning = deadline.within(lambda: (plan_pruning if dry_run else prune_root)(root, limit_bytes))
    return Pruned(
        removed=tuple(Removed(repo=each.repo, commit=each.commit, freed_bytes=each.nbytes) for each in pruning.evicted),
        reclaimed_bytes=pruning.reclaimed_bytes,
        kept_bytes=pruning.kept_bytes,
        max_bytes=limit_bytes,
    )


def pin(model: str | os.PathLike[str], *, revision: str | None = None, options: Options | None = None) -> Pin:
    """Keep a snapshot of the local tier from being evicted, whoever brought it; says which one it is.

    Args:
        model: as for :func:`remove`.
        revision: as for :func:`remove`.
        options: settings.

    Raises:
        ModelNotFoundError: the local tier does not have it.
        UsageError: it is no name; or a plain folder, which is never evicted.
        NotWritableError, StoreError: it cannot be written.
        DeadlineError: the setting ``deadline`` is over.
    """
    return _change_pin(set_pin, f"pinning {name_of(model)}", model, revision, options)


def unpin(model: str | os.PathLike[str], *, revision: str | None = None, options: Options | None = None) -> Pin:
    """Let a snapshot of the local tier be evicted again; says which one it is.

    Args and Raises: as for :func:`pin`.
    """
    return _change_pin(remove_pin, f"unpinning {name_of(model)}", model, revision, options)


def _change_pin(
    change: Callable[[RepoLayout, str], None],
    what: str,
    model: str | os.PathLike[str],
    revision: str | None,
    options: Options | None,
) -> Pin:
    settings = decide_settings(options, {})

    def act() -> Pin:
        local = find_local(model, revision, settings)
        change(local.layout, local.commit)
        return Pin(repo=local.repo, commit=local.commit)

    return Deadline(settings.deadline, what).within(act)
