"""Removing a snapshot, so that at every moment the cache is whole for whoever else uses it.

::

    refs that mean it ─► folder into a grave, by one rename ─► manifest, stamp, pin ─► blobs that nobody needs into the
    grave ─► those that somebody has come to need meanwhile back ─► grave removed

The refs go first, since the hub's tools take a ref to a missing snapshot for a broken repo. The grave holds all that
is needed to go on after a crash (:mod:`~fastload._store.keep.grave`, :func:`finish_removals`).

No lock keeps a publisher from linking to a blob while it is being removed. So blobs are moved before they are removed,
and the snapshots looked at once more in between: whoever published a link before the move gets its blob back, and
whoever did later has seen, when it looked at what it published, that the blob is gone.
"""

from __future__ import annotations

import errno
import os
import shutil
from typing import TYPE_CHECKING

from fastload._store.filesystem import remove_file, sync_folder, translate_write, writing
from fastload._store.keep.disk import count_disk_bytes, list_folder
from fastload._store.keep.grave import dig, is_grave, take_over
from fastload._store.keep.listed import forget_lists
from fastload._store.keep.repo_usage import find_buried
from fastload._store.keep.tidy import remove_empty
from fastload._store.keep.usage import (
    find_linked_blobs,
    find_named_links,
    find_needed_blobs,
    find_told_blobs,
    list_snapshots,
)
from fastload._store.repo_refs import list_refs, read_commit

if TYPE_CHECKING:
    from fastload._store.keep.grave import Grave, Site
    from fastload._store.layout import RepoLayout


class _TakenOverError(Exception):
    """Somebody else goes on with the removal: the grave has another name now."""


def remove_snapshot(layout: RepoLayout, commit: str, awaited: frozenset[str] = frozenset()) -> int:
    """Remove what there is of the snapshot of ``commit``; says what its files freed of the disk, in bytes.

    What tells of it, such as its manifest, is not counted, as it is not in what is kept
    (:meth:`~fastload._store.keep.usage.RepoUsage.count_kept_bytes`): so what is freed is what is kept less.

    Whether it may be removed is the caller's affair. Blobs that another snapshot needs stay, as do those ``awaited`` by
    one that is not there yet, and those that another tool is writing anew; of a blob that is a link, as the hub's
    client makes them to share bytes between repos, the link goes and what it leads to stays.

    Raises:
        NotWritableError: this user may not. Nothing was changed.
        StoreError: something cannot be read or removed.
    """
    folder = layout.snapshot(commit)
    if not os.path.lexists(folder) and not os.path.lexists(layout.manifest(commit)):
        return 0
    _check_may_remove(folder)
    with dig(layout, commit) as grave:
        for revision, meant in list_refs(layout).items():
            if meant == commit:
                _remove_ref(layout, revision, commit)
        if not _move(folder, grave.snapshot) and os.path.lexists(folder):
            return remove_snapshot(layout, commit, awaited)  # somebody has taken the empty grave for a dead man's
        if os.path.isdir(layout.snapshots):
            sync_folder(layout.snapshots)
        if not os.path.lexists(folder):  # else somebody has brought it anew, and these are his
            _remove_what_tells_of(layout, grave)
        return _finish(layout, grave, awaited)


def finish_removals(layout: RepoLayout) -> int:
    """Go on where removals were broken off; says what their files freed of the disk, in bytes.

    Raises:
        StoreError: something cannot be read or removed.
    """
    return sum(finish_removal(layout, name) for name in list_folder(layout.ours("staging")) if is_grave(name))


def finish_removal(layout: RepoLayout, name: str) -> int:
    """The same for one, by the name of its grave; 0 where somebody else goes on with it.

    Raises:
        StoreError: something cannot be read or removed.
    """
    grave = take_over(layout, name)
    if grave is None:
        return 0
    with grave:
        return _finish(layout, grave)


def find_named_in(layout: RepoLayout, site: Site) -> set[str]:
    """The blobs that a snapshot in its grave names; where only its manifest is left of it, that says them all.

    Raises:
        StoreError: a folder cannot be read.
    """
    return find_named_links(layout, site.snapshot, site.commit) | find_told_blobs(site.manifest)


def may_remove(layout: RepoLayout, commit: str) -> bool:
    """True if this user may take the snapshot away, as far as the folders tell."""
    return _find_unwritable(layout.snapshot(commit)) is None


def _check_may_remove(folder: str) -> None:
    """Before anything is changed."""
    path = _find_unwritable(folder)
    if path is not None:
        code = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
        raise translate_write(path, OSError(code, os.strerror(code)))


def _find_unwritable(folder: str) -> str | None:
    """What keeps it from being moved: a folder that moves is written too, for its ``..`` (rename(2))."""
    there = (path for path in (os.path.dirname(folder), folder) if os.path.isdir(path))
    return next((path for path in there if not os.access(path, os.W_OK | os.X_OK)), None)


def _remove_ref(layout: RepoLayout, revision: str, commit: str) -> None:
    if read_commit(layout, revision) == commit:  # read again: it may have moved on
        remove_file(layout.ref(revision))
        if os.path.isdir(os.path.dirname(layout.ref(revision))):
            sync_folder(os.path.dirname(layout.ref(revision)))


def _remove_what_tells_of(layout: RepoLayout, grave: Grave) -> None:
    _move(layout.manifest(grave.commit), grave.manifest)
    for name in (layout.stamp, layout.mark, layout.pin, layout.reports, layout.tree):
        remove_file(name(grave.commit))
    forget_lists(layout, grave.commit)
    absent = os.path.join(layout.folder, ".no_exist")  # what the hub's client has asked for in vain
    if not os.path.islink(absent):  # it leads to what is another's, and not to be removed
        shutil.rmtree(os.path.join(absent, grave.commit), ignore_errors=True)


def _finish(layout: RepoLayout, grave: Grave, awaited: frozenset[str] = frozenset()) -> int:
    try:
        replaced_bytes = _bury_blobs(layout, grave, awaited)
        _give_back(layout, grave)
    except _TakenOverError:
        return 0
    freed_bytes = replaced_bytes + _count_files(grave)
    shutil.rmtree(grave.path, ignore_errors=True)  # what resists is tried again with the next removal
    freed_bytes -= _count_files(grave)
    if not list_snapshots(layout):
        remove_empty(layout)
    return freed_bytes


def _count_files(grave: Grave) -> int:
    return count_disk_bytes(grave.snapshot) + count_disk_bytes(grave.blobs)


def _bury_blobs(layout: RepoLayout, grave: Grave, awaited: frozenset[str]) -> int:
    """Move what only this snapshot needed into the grave; says what that frees: what was there of it already."""
    replaced_bytes = 0
    named = find_named_in(layout, grave)
    there = list_folder(layout.blobs)
    for name in sorted(find_buried(named, there, find_needed_blobs(layout) | awaited)):
        target = os.path.join(grave.blobs, name)
        before_bytes = count_disk_bytes(target)
        if _move(layout.blob(name), target):
            replaced_bytes += before_bytes
        elif not os.path.isdir(grave.blobs):
            raise _TakenOverError
    if there:
        sync_folder(layout.blobs)
    return replaced_bytes


def _give_back(layout: RepoLayout, grave: Grave) -> None:
    """Move back what a snapshot that was published meanwhile needs."""
    buried = find_linked_blobs(layout).intersection(list_folder(grave.blobs))
    for name in buried:
        if not os.path.lexists(layout.blob(name)):
            _move(os.path.join(grave.blobs, name), layout.blob(name))
    if buried:
        sync_folder(layout.blobs)


def _move(path: str, target: str) -> bool:
    """Rename; False where there is nothing to rename, or nowhere to."""
    with writing(path):
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return False
    return True
