"""Leftovers go: what was found of them, each looked at once more, so that nobody loses what he has come back to."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fastload._store.admit.area import StagingArea
from fastload._store.keep.disk import count_disk_bytes
from fastload._store.keep.leftovers import Age, Why, find_leftovers, find_made, forsaken, has_blob, headless, is_loose
from fastload._store.keep.removal import finish_removal, remove_snapshot
from fastload._store.keep.tidy import remove_emptied, remove_empty
from fastload._store.keep.usage import list_snapshots
from fastload._store.lease.inuse import is_being_brought
from fastload.errors import StoreError

if TYPE_CHECKING:
    from fastload._store.keep.leftovers import Clearing, Leftover


def reclaim_leftovers(root: str, *, idle_s: float = 0.0, now_ns: int | None = None) -> int:
    """Remove what nobody needs any more below ``root``; says what that freed of the disk, in bytes.

    Args:
        root: the tier's folder.
        idle_s: what was written since is left alone, however dead its writer: it may be about to be resumed.
        now_ns: the time, as ``time.time_ns`` tells it.

    What this user may not read or remove is left alone.

    Raises:
        StoreError: the root cannot be read.
    """
    age = Age(time.time_ns() if now_ns is None else now_ns, idle_s)
    freed_bytes = sum(_clear(root, clearing, age) for clearing in find_leftovers(root, age))
    remove_emptied(root)
    return freed_bytes + sum(map(_remove_any, find_made(root, age)))


def count_leftovers(root: str) -> tuple[int, list[Clearing]]:
    """What :func:`reclaim_leftovers` would free as things are, and of what; removes nothing.

    Raises:
        StoreError: the root cannot be read.
    """
    age = Age(time.time_ns(), 0.0)
    clearings = list(find_leftovers(root, age))
    made_bytes = sum(map(count_disk_bytes, find_made(root, age)))
    return made_bytes + sum(each.nbytes for clearing in clearings for each in clearing.leftovers), clearings


def _clear(root: str, clearing: Clearing, age: Age) -> int:
    freed_bytes = 0
    for leftover in clearing.leftovers:
        with suppress(StoreError):  # another user's, to be sure; the others do not wait for him
            freed_bytes += _reclaim(root, clearing, leftover, age)
    with suppress(StoreError):
        if not is_being_brought(root, clearing.repo) and not list_snapshots(clearing.layout):
            remove_empty(clearing.layout)
    return freed_bytes


def _reclaim(root: str, clearing: Clearing, leftover: Leftover, age: Age) -> int:
    layout, name = clearing.layout, leftover.name
    if leftover.why is Why.BROKEN_OFF:
        return finish_removal(layout, name)
    if leftover.why is Why.STAGED:
        return _reclaim_staged(clearing, name, age)
    if leftover.why is Why.LOOSE:
        return _remove_any(layout.ours("staging", name)) if is_loose(layout, name, age) else 0
    with headless(layout, name, age) as is_leftover:
        return remove_snapshot(layout, name) if is_leftover and not is_being_brought(root, clearing.repo) else 0


def _reclaim_staged(clearing: Clearing, name: str, age: Age) -> int:
    layout = clearing.layout
    area = StagingArea(layout.ours())
    with forsaken(layout, name, age, lambda digest: has_blob(layout, digest)) as is_leftover:
        if not is_leftover:
            return 0
        freed_bytes = count_disk_bytes(area.part(name))
        area.remove(name)
    return freed_bytes


def _remove_any(path: str) -> int:
    """What that frees: what resists, or is somebody else's, stays."""
    there_bytes = count_disk_bytes(path)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)
    return there_bytes - count_disk_bytes(path)
