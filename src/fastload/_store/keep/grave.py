"""Where a snapshot lies while it is removed: a folder in ``.fastload/staging/``, with all that is needed to go on.

::

    removed.<commit>.<id>/
        snapshot/        the folder, with its links
        manifest.json
        blobs/           what nobody else needs
        lock             held as long as whoever removes it lives

Whoever finds one whose remover does not live takes it over, under a new name. So even where locks do not tell the
truth, and the other lives, he finds the way barred, and no two remove from the same grave.

What is in a grave is removed, or becomes a blob again. So it is taken over only where this user has dug it: others may
write to ``staging/`` too.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fastload._store.filesystem import make_folder, new_id, remove_file, writing
from fastload._store.lease.lock import flock_is_truthful, open_lock, try_exclusive
from fastload._store.left import is_own

if TYPE_CHECKING:
    from types import TracebackType

    from fastload._store.layout import RepoLayout

_PREFIX = "removed."
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the parts of a grave are."""

    path: str
    commit: str

    @property
    def snapshot(self) -> str:
        """Where the folder of links is."""
        return os.path.join(self.path, "snapshot")

    @property
    def manifest(self) -> str:
        """Where the manifest is."""
        return os.path.join(self.path, "manifest.json")

    @property
    def blobs(self) -> str:
        """Where the blobs are."""
        return os.path.join(self.path, "blobs")


@dataclass(frozen=True, slots=True)
class Grave(Site):
    """One grave, held; a context manager that lets go."""

    lock: int

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.lock)


def is_grave(name: str) -> bool:
    """True for the name of a grave among other names in ``staging/``."""
    return name.startswith(_PREFIX)


def dig(layout: RepoLayout, commit: str) -> Grave:
    """A new grave for the snapshot of ``commit``.

    Raises:
        NotWritableError, StoreError: it cannot be made.
    """
    while True:
        path = _new_path(layout, commit)
        make_folder(os.path.join(path, "blobs"))
        with writing(path), contextlib.suppress(FileNotFoundError):  # taken for a dead man's before it was locked
            return Grave(path, commit, _hold(path))


def take_over(layout: RepoLayout, name: str) -> Grave | None:
    """The grave ``name``, unless whoever made it lives or is another user, or somebody takes it over too.

    Raises:
        StoreError: it may not be renamed.
    """
    found = layout.ours("staging", name)
    _remove_link(found)
    if not _is_forsaken(found):
        return None
    commit = _find_commit(name)
    path = _new_path(layout, commit)
    with writing(found):
        try:
            os.rename(found, path)
            _remove_link(os.path.join(path, "blobs"))
            os.makedirs(os.path.join(path, "blobs"), exist_ok=True)
            return Grave(path, commit, _hold(path))
        except FileNotFoundError:
            return None


def find_site(layout: RepoLayout, name: str) -> Site | None:
    """The grave ``name`` if :func:`take_over` would take it as things are; it is left as it is."""
    found = layout.ours("staging", name)
    return Site(found, _find_commit(name)) if is_grave(name) and _is_forsaken(found) else None


def _find_commit(name: str) -> str:
    return name.removeprefix(_PREFIX).partition(".")[0]


def _is_forsaken(path: str) -> bool:
    return _is_own_folder(path) and not _is_alive(os.path.join(path, _LOCK))


def has_nobody(layout: RepoLayout, name: str) -> bool:
    """True of a grave whose remover does not live; another user's, which is not taken over, may go unread."""
    return is_grave(name) and not _is_alive(os.path.join(layout.ours("staging", name), _LOCK))


def _remove_link(path: str) -> None:
    """A link in the place of a folder goes; what it leads to is nobody's grave."""
    if os.path.islink(path):
        remove_file(path)


def _is_own_folder(path: str) -> bool:
    try:
        status = os.lstat(path)
    except OSError:  # gone, or another user's
        return False
    return stat.S_ISDIR(status.st_mode) and is_own(status, os.path.dirname(path))


def _new_path(layout: RepoLayout, commit: str) -> str:
    return layout.ours("staging", f"{_PREFIX}{commit}.{new_id()}")


def _hold(path: str) -> int:
    lock = os.open(os.path.join(path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try_exclusive(lock)
    return lock


def _is_alive(path: str) -> bool:
    """True if somebody holds the lock."""
    try:
        lock = open_lock(path)
    except OSError:  # not made yet, or never: what he loses is an empty grave
        return False
    try:
        return not try_exclusive(lock) and flock_is_truthful(path)
    finally:
        os.close(lock)
