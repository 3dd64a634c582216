"""What the store asks of a file system, with the system's refusals made ours."""

from __future__ import annotations

import ctypes
import errno
import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from fastload._descriptors import DESCRIPTOR_HINTS
from fastload._store.ownership import cure_path
from fastload.errors import NoSpaceError, NotWritableError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Make ours what the system says of writing to ``path``.

    Raises:
        NoSpaceError: no room, no quota.
        NotWritableError: no right; says whose it is and what cures it.
        StoreError: anything else.
    """
    try:
        yield
    except OSError as exc:
        raise translate_write(path, exc) from exc


def is_no_space(exc: OSError) -> bool:
    """True where there is no room, or no quota."""
    return exc.errno in _NO_SPACE


def translate_write(path: str, exc: OSError, *, is_folder: bool = False) -> StoreError:
    """Our error for what the system said about writing to ``path``, or about making it as a folder."""
    if is_no_space(exc):
        return NoSpaceError(path, f"no space left ({exc.strerror})", "Free some, or make the volume larger")
    if exc.errno in _NOT_WRITABLE:
        return _not_writable(path, exc, is_folder=is_folder)
    if exc.errno == errno.EISDIR:
        hint = "See who made that folder and what is in it; move it away, then try again"
        return StoreError(path, "a folder is there where a file belongs", hint)
    hint = DESCRIPTOR_HINTS.get(exc.errno or 0, "Check the storage, then try again")
    return StoreError(path, f"cannot be written ({exc.strerror})", hint)


def _not_writable(path: str, exc: OSError, *, is_folder: bool) -> NotWritableError:
    """Says who asked, whose the nearest folder is, and the command that cures it."""
    uid, gid = os.geteuid(), os.getegid()
    if exc.errno == errno.EROFS:
        hint = "It is mounted read-only: mount it writable, or name another place"
        return NotWritableError(path, "cannot be written (read-only file system)", hint)
    there = whole = os.path.abspath(path)
    while not os.path.lexists(there) and there != "/":
        there = os.path.dirname(there)
    try:
        status = os.lstat(there)
    except OSError:  # gone since, or of a mount that says nothing any more
        return NotWritableError(path, f"cannot be written ({exc.strerror})", f"Let uid {uid} write there")
    reason = (
        f"cannot be written ({exc.strerror}): this is uid {uid}, gid {gid}, and {there!r} is owned by uid "
        f"{status.st_uid}, gid {status.st_gid}, mode {status.st_mode & 0o7777:04o}"
    )
    return NotWritableError(path, reason, cure_path(whole, there, is_folder=is_folder))


def has_size(path: str, size: int) -> bool:
    """True if a file of just that size is there, by itself or through links."""
    return os.path.isfile(path) and os.path.getsize(path) == size


def make_folder(path: str) -> None:
    """Make ``path`` and what is above it.

    Raises:
        StoreError: as :func:`writing` says.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as exc:
        raise translate_write(path, exc, is_folder=True) from exc


def sync_folder(path: str) -> None:
    """Bring what the folder lists to the disk; a file system that cannot sync folders keeps them in order by itself."""
    with writing(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as exc:
            if exc.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}:
                raise
        finally:
            os.close(descriptor)


def remove_file(path: str) -> None:
    """Remove ``path`` if it is there.

    Raises:
        StoreError: it may not be removed.
    """
    with writing(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return


def put_link(path: str, target: str, made: str) -> None:
    """Let ``path`` be a link to ``target``, in one step; it is called ``made`` before.

    Raises:
        StoreError: it cannot be written.
    """
    with writing(path):
        try:
            os.symlink(target, made)
            os.replace(made, path)
        except BaseException:
            with suppress(OSError):  # Ctrl-C may come when it is in its place already
                os.unlink(made)
            raise
    sync_folder(os.path.dirname(path))


def exchange(a: str, b: str) -> bool:
    """Swap two paths in one step; False where the file system cannot.

    Raises:
        StoreError: it can, but not these.
    """
    if not _libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE):
        return True
    code = ctypes.get_errno()
    if code in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}:
        return False
    raise translate_write(b, OSError(code, os.strerror(code)))


def start_writing_back(descriptor: int, offset: int, length: int) -> None:
    """Ask the kernel to begin writing these bytes to the disk, so that the sync at the end finds little to do."""
    _libc.sync_file_range(descriptor, offset, length, _SYNC_FILE_RANGE_WRITE)  # best effort: fsync follows in any case


def reserve(descriptor: int, nbytes: int) -> None:
    """Take ``nbytes`` of the disk for a file before they are written; a file system that cannot is left to run full.

    Not ``posix_fallocate``: where the file system cannot, that writes zeros.

    Raises:
        OSError: there is no room.
    """
    if nbytes and _libc.fallocate(descriptor, 0, 0, nbytes):
        code = ctypes.get_errno()
        if code not in {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EPERM}:
            raise OSError(code, os.strerror(code))


def check_one_mount(folder: str, scratch: str) -> None:
    """Check that what is made in ``scratch`` could be renamed into ``folder``, before anything is made there in vain.

    By renaming what is not there: the kernel compares the mounts before it looks for it. ``st_dev`` is the same where
    one folder of a file system is mounted apart (``mount --bind``, a volume's ``subPath``).

    Raises:
        StoreError: they are on two mounts.
    """
    name = new_id()
    try:
        os.rename(os.path.join(scratch, name), os.path.join(folder, name))
    except OSError as exc:  # else it is not there; anything else is said by whoever writes
        if exc.errno == errno.EXDEV:
            above = os.path.commonpath([folder, scratch])
            reason = f"it is on another mount than {scratch!r}: no file that is made there can be renamed into it"
            raise StoreError(folder, reason, f"Mount {above!r} as a whole, and no folder in it") from exc


def new_id() -> str:
    """A name that nobody else takes."""
    return uuid.uuid4().hex[:16]
