"""Room on a tier: is there enough for what shall be brought, with what must stay free and what may be kept?

Asked before the first byte is fetched, since a full disk at the end of 140 GB helps nobody. The file system's own word
(ENOSPC, EDQUOT) comes later and counts too, see :func:`~fastload._store.filesystem.writing`.
"""

from __future__ import annotations

import os
import shlex
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fastload._store.filesystem import writing
from fastload._store.keep.scratch import count_promised_bytes
from fastload._store.keep.usage import count_kept_bytes, list_repos
from fastload._store.layout import lease_folder
from fastload._store.lease.file import make_lease_folder
from fastload._store.lease.lock import flock_is_truthful, try_exclusive
from fastload.errors import NoSpaceError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._settings.values import Share

_PATIENCE_S = 3.0
_POLL_S = 0.05


Kind = Literal["local", "cache", "plain"]
"""The local tier, another tier or cache, or a plain folder, whose files are its owner's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the settings leave of a tier's disk."""

    min_free: Share
    """What must stay free of the file system."""
    max_bytes: int | None
    """How much fastload may keep there; None: all that there is room for."""
    kind: Kind = "local"
    """What is filled, since what frees room there depends on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRoom:
    """What a tier has, in bytes, and what it must have."""

    root: str
    needed_bytes: int
    free_bytes: int
    """For this user, who need not get all that is free; without what others were promised and have yet to write."""
    min_free_bytes: int
    kept_bytes: int
    """What fastload keeps there, files on their way in included, and what was promised to others."""
    max_bytes: int | None
    kind: Kind

    @property
    def shortfall_bytes(self) -> int:
        """What is missing on the disk, or under the cap; 0 or less: it fits."""
        if not self.needed_bytes:
            return 0
        on_disk = self.needed_bytes + self.min_free_bytes - self.free_bytes
        under_cap = self.needed_bytes + self.kept_bytes - self.max_bytes if self.max_bytes is not None else on_disk
        return max(on_disk, under_cap)

    def refusal(self) -> NoSpaceError:
        """The error, with all that is known."""
        cap = "no cap" if self.max_bytes is None else f"local_max_bytes is {self.max_bytes:,}"
        reason = (
            f"no room for {self.needed_bytes:,} bytes: {self.free_bytes:,} are free for this user, of which "
            f"{self.min_free_bytes:,} must stay free (min_free); fastload keeps {self.kept_bytes:,} there "
            f"({cap}); {self.shortfall_bytes:,} are missing"
        )
        return NoSpaceError(self.root, reason, self._find_cure())

    def _find_cure(self) -> str:
        if self.max_bytes is not None and self.needed_bytes > self.max_bytes:
            return "It is larger than local_max_bytes: raise that, or leave files out with --exclude"
        lacks_cap = self.max_bytes is not None and self.needed_bytes + self.kept_bytes > self.max_bytes
        lacks_disk = self.needed_bytes + self.min_free_bytes > self.free_bytes
        settings = ["raise local_max_bytes"] * lacks_cap + ["lower min_free", "make the volume larger"] * lacks_disk
        return f"{self._name_removers()}; or {', or '.join(settings)}"

    def _name_removers(self) -> str:
        if self.kind == "plain":
            return "Free space on that volume"
        stays = "pinned, just used or in use: it stays"
        if self.kind == "local":
            return f"'fastload ls' shows what is there, 'fastload rm' and 'fastload prune' remove it ({stays})"
        root = f"--local {shlex.quote(self.root)}"
        return f"'fastload ls {root}' shows what is there, 'fastload rm {root} NAME' removes it ({stays})"


def measure_room(root: str, needed_bytes: int, limits: Limits) -> DiskRoom:
    """What there is for ``needed_bytes`` more.

    Raises:
        StoreError: it cannot be read.
    """
    there = root
    while not os.path.isdir(there) and there != "/":  # not made yet: the disk is that of the folder above
        there = os.path.dirname(there)
    try:
        status = os.statvfs(there)
    except OSError as exc:
        raise StoreError(there, f"cannot be asked for its room ({exc.strerror})", "Check the mount") from exc
    promised_bytes = count_promised_bytes(_list_staging(root))
    return DiskRoom(
        root=root,
        needed_bytes=needed_bytes,
        free_bytes=max(0, status.f_bavail * status.f_frsize - promised_bytes),
        min_free_bytes=limits.min_free.of(status.f_blocks * status.f_frsize),
        kept_bytes=count_kept_bytes(root) + promised_bytes,
        max_bytes=limits.max_bytes,
        kind=limits.kind,
    )


def _list_staging(root: str) -> list[str]:
    """Where there may be scratches: in the repos of a tier, or below a plain folder."""
    return [os.path.join(root, "staging"), *(layout.ours("staging") for _, layout in list_repos(root))]


def check_room(root: str, needed_bytes: int, limits: Limits) -> None:
    """Check that ``needed_bytes`` more fit below ``root``; what is staged already, or there, does not count as more.

    Raises:
        NoSpaceError: they do not; the message has all numbers and what to do.
        StoreError: it cannot be read.
    """
    room = measure_room(root, needed_bytes, limits)
    if room.shortfall_bytes > 0:
        raise room.refusal()


@contextmanager
def reserving(root: str, needed_bytes: int, limits: Limits, evict: Callable[[int], int] | None) -> Iterator[None]:
    """Room for ``needed_bytes`` more, which the caller takes inside of the ``with``, by allocating its files.

    Where another program writes them, by a promise. One at a time, so that of two that do not fit together the second
    sees what the first has taken. That rests on a lock where there are locks; where there are none, the disk itself
    has the last word.

    Args:
        root: the tier's folder.
        needed_bytes: as for :func:`check_room`.
        limits: as for :func:`check_room`.
        evict: asked to free so many bytes where they are missing; None: nothing may be removed.

    Raises:
        NoSpaceError: there is no room, also after eviction.
        NotWritableError, StoreError: the tier cannot be written.
    """
    with _one_at_a_time(root):
        shortfall_bytes = measure_room(root, needed_bytes, limits).shortfall_bytes
        if shortfall_bytes > 0 and evict is not None:
            evict(shortfall_bytes)
        check_room(root, needed_bytes, limits)
        yield


@contextmanager
def _one_at_a_time(root: str) -> Iterator[None]:
    """Hold the tier's room if it can be had within a few seconds; else go on without."""
    path = os.path.join(lease_folder(root), "room.lock")
    make_lease_folder(lease_folder(root))
    with writing(path):
        fd = _open_lock(path)
    try:
        until_s = time.monotonic() + _PATIENCE_S
        while not try_exclusive(fd) and time.monotonic() < until_s and flock_is_truthful(path):
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)


def _open_lock(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except PermissionError:  # another user's, which can be held nevertheless
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
