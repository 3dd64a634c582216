"""The files of one lease, all in one folder, and the few steps that are taken with them.

::

    <folder>/<name>.lease        the record of whoever holds it; absent: nobody does
    <folder>/<name>.<id>.lock    held by flock as long as the holder with that id lives; absent: it could not be
    <folder>/<name>.<id>.new     its next record, about to be renamed over the one above
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._store.containment import check_inside
from fastload._store.filesystem import make_folder, writing
from fastload._store.lease.holder import MAX_RECORD_BYTES, Holder, dump_holder, parse_holder
from fastload._store.lease.lock import flock_is_truthful, open_lock, try_exclusive
from fastload._system_file import read_boot_id
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODE = 0o644
"""Whatever the umask: who cannot read a record cannot see that its holder lives."""
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_GONE = frozenset({errno.ENOENT, errno.ESTALE})


@dataclass(frozen=True, slots=True)
class LeaseFile:
    """Where one lease is."""

    folder: str
    name: str

    @property
    def path(self) -> str:
        """The record."""
        return os.path.join(self.folder, f"{self.name}.lease")

    def _beside(self, holder_id: str, suffix: str) -> str:
        return os.path.join(self.folder, f"{self.name}.{holder_id}.{suffix}")

    def read(self) -> Holder | None:
        """Who holds it; None if nobody does.

        Raises:
            FormatError: the record is malformed.
            StoreError: it cannot be read.
        """
        try:
            # By path each time: a network mount asks its server at every open, and at little else.
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError as exc:
            if exc.errno in _GONE:
                return None
            raise self._unreadable(exc) from exc
        try:
            raw = _read_all(fd)
        except OSError as exc:
            if exc.errno in _GONE:  # replaced between the open and the read
                return None
            raise self._unreadable(exc) from exc
        finally:
            os.close(fd)
        return parse_holder(raw, path=self.path)

    def _unreadable(self, exc: OSError) -> StoreError:
        reason = f"cannot be read ({exc.strerror})"
        return StoreError(self.path, reason, "It is fastload's: check who owns it, or remove it while no fastload runs")

    def create(self, holder: Holder) -> bool:
        """Write the first record; False if there is one. Of many at once, one wins.

        Raises:
            StoreError: it cannot be written.
        """
        with writing(self.path):
            try:
                _write_new(self.path, holder)
            except FileExistsError:
                return False
        return True

    def replace(self, holder: Holder) -> None:
        """Write another record in one step, whosever the one before was.

        Raises:
            StoreError: it cannot be written.
        """
        scratch = self._beside(holder.id, "new")
        with writing(self.path), contextlib.suppress(FileNotFoundError):
            # Not found: swept away as a leftover by somebody who took over, or a server that was asked twice. Reading
            # the record tells which.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)
            _write_new(scratch, holder)
            os.replace(scratch, self.path)

    def remove(self) -> None:
        """Remove the record, so that the next one can be created.

        Raises:
            StoreError: it cannot be removed.
        """
        with writing(self.path), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def hold_lock(self, holder_id: str) -> int | None:
        """A descriptor whose end shows this machine that the holder's has come; None where locks do not tell the truth.

        Raises:
            StoreError: the folder cannot be written.
        """
        path = self._beside(holder_id, "lock")
        with writing(path):
            fd = os.open(path, _CREATE, _MODE)
        if try_exclusive(fd) and flock_is_truthful(path):
            return fd
        os.close(fd)
        self.drop_lock(holder_id)
        return None

    def drop_lock(self, holder_id: str) -> None:
        """Remove the lock's file."""
        with contextlib.suppress(OSError):  # a leftover, no harm to anybody
            os.unlink(self._beside(holder_id, "lock"))

    @contextmanager
    def proof_of_death(self, holder: Holder) -> Iterator[bool]:
        """True if ``holder``'s lock is free, which proves its death where it runs under the same kernel and mount.

        Meanwhile the lock is ours: of many on one machine who find the same holder dead, one gets True.
        """
        fd = self._open_lock_of(holder)
        if fd is None:
            yield False
            return
        try:
            is_same_mount = os.fstat(fd).st_dev == holder.device
            yield is_same_mount and try_exclusive(fd) and flock_is_truthful(self._beside(holder.id, "lock"))
        finally:
            os.close(fd)

    def _open_lock_of(self, holder: Holder) -> int | None:
        if not holder.boot_id or holder.boot_id != read_boot_id():
            return None  # another kernel, whose locks this one need not know
        try:
            return open_lock(self._beside(holder.id, "lock"))
        except OSError:
            return None

    def sweep(self, holder_id: str) -> None:
        """Remove what dead holders left, and all who were not as quick as ``holder_id``."""
        with contextlib.suppress(OSError):  # not ours to remove, or removed by others: no harm to anybody
            for name in self._list_beside(holder_id):
                os.unlink(os.path.join(self.folder, name))

    def sweep_dead(self, holder_id: str) -> None:
        """Remove what others left who provably died: those who are about to try again keep their locks."""
        with contextlib.suppress(OSError):
            for name in self._list_beside(holder_id):
                _remove_if_free(os.path.join(self.folder, name))

    def has_traces(self) -> bool:
        """True if somebody holds it, or has left anything.

        Raises:
            StoreError: the folder cannot be read.
        """
        try:
            return os.path.lexists(self.path) or bool(self._list_beside(""))
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise self._unreadable(exc) from exc

    def _list_beside(self, holder_id: str) -> list[str]:
        """The files of all holders but that one."""
        beside = re.compile(rf"{re.escape(self.name)}\.(?P<id>[0-9a-f]{{32}})\.(?:lock|new)")
        matches = (beside.fullmatch(name) for name in os.listdir(self.folder))
        return [match[0] for match in matches if match and match["id"] != holder_id]


def _read_all(fd: int) -> bytes:
    """As much as a record may have, and a byte more, however little a read gives at once."""
    raw = b""
    while len(raw) <= MAX_RECORD_BYTES and (piece := os.read(fd, MAX_RECORD_BYTES + 1 - len(raw))):
        raw += piece
    return raw


def _remove_if_free(path: str) -> None:
    fd = open_lock(path)
    try:
        if try_exclusive(fd) and flock_is_truthful(path):
            os.unlink(path)
    finally:
        os.close(fd)


def make_lease_folder(folder: str) -> None:
    """Make ``folder``: ``<root>/.locks/fastload`` of a tier, ``<folder>/.fastload/leases`` of a plain folder.

    Raises:
        StoreError: it cannot be made, or a link leads out of the tier or the plain folder.
    """
    check_inside(folder, os.path.dirname(os.path.dirname(folder)))
    make_folder(folder)


def _write_new(path: str, holder: Holder) -> None:
    fd = os.open(path, _CREATE, _MODE)
    try:
        try:
            with contextlib.suppress(OSError):  # some mounts know no modes, and no umask either
                os.fchmod(fd, _MODE)
            rest = dump_holder(holder)
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)  # where a network mount says that it is full
    except BaseException:
        os.unlink(path)
        raise
