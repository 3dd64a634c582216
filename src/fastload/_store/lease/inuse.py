"""Is a snapshot being read or brought in right now? What locks and leases can tell of that.

A reader holds a shared lock on the manifest, so whoever gets an exclusive one is alone; but only where locks tell the
truth. Where they do not, nobody can say, and what may be done then is the caller's affair: a person who removes a
snapshot by name is obeyed, an eviction leaves it alone.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from fastload._store.layout import lease_folder
from fastload._store.lease.file import LeaseFile
from fastload._store.lease.lock import flock_is_truthful, open_lock, try_exclusive
from fastload.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._store.layout import RepoLayout


class Use(Enum):
    """What is known of the use of a snapshot."""

    FREE = "free"
    HELD = "held"
    UNKNOWN = "unknown"
    """Locks do not work there, or the manifest cannot be opened."""


@contextmanager
def held_alone(layout: RepoLayout, commit: str) -> Iterator[Use]:
    """Hold the manifest of ``commit`` alone if nobody reads the snapshot; says whether that is so. Never waits.

    A snapshot without a manifest has no reader that could be seen, and counts as free.
    """
    path = layout.manifest(commit)
    try:
        fd = open_lock(path)
    except FileNotFoundError:
        yield Use.FREE
        return
    except OSError:
        yield Use.UNKNOWN
        return
    try:
        is_held = try_exclusive(fd)
        # Asked on the manifest itself: while we hold it that keeps no reader out, and else a reader keeps us out.
        if not flock_is_truthful(path):
            yield Use.UNKNOWN
        else:
            yield Use.FREE if is_held else Use.HELD
    finally:
        os.close(fd)


def is_being_brought(root: str, repo: str) -> bool:
    """True if somebody holds the lease on ``repo`` and is not provably dead."""
    file = LeaseFile(lease_folder(root), repo.replace("/", "--"))
    try:
        holder = file.read()
    except FormatError:  # garbled: somebody's, and nobody can say whose
        return True
    if holder is None:
        return False
    with file.proof_of_death(holder) as is_dead:
        return not is_dead
