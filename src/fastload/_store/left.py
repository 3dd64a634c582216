"""What an earlier process left in a folder of ours, where others may write too, and may have put something else.

Behind a link, or behind a file that has another name elsewhere, lies what is not ours to read or to overwrite.
"""

from __future__ import annotations

import os
import stat

from fastload._read.file import regular_only
from fastload._store.filesystem import new_id, remove_file
from fastload.errors import FormatError


def make_new(path: str, flags: int = 0) -> int:
    """A descriptor to read and write a new file, with ``flags`` added.

    Raises:
        OSError: something is there already, or it cannot be made.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | flags, 0o666)


def open_left(path: str, flags: int) -> int | None:
    """A descriptor of the file that was left at ``path``; None where there is none, or anything else."""
    try:
        descriptor = regular_only(path, flags | os.O_NOFOLLOW)
    except (OSError, FormatError):
        return None
    if is_still_at(path, descriptor):
        return descriptor
    os.close(descriptor)
    return None


def is_still_at(path: str, descriptor: int) -> bool:
    """True if the open file is what lies at ``path``, and has no other name."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return is_single(status) and os.path.samestat(status, os.fstat(descriptor))


def is_single(status: os.stat_result) -> bool:
    """True for the status, by ``lstat``, of a regular file that has one name; some file systems do not count names."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def is_own(status: os.stat_result, scratch: str) -> bool:
    """True if this user made what has that ``status``; ``scratch`` is a folder beside it, for a file to compare with.

    An NFS server that squashes root gives what root makes to another user, and some mounts give all to one.
    """
    return status.st_uid == os.geteuid() or status.st_uid == _find_owner_of_new(scratch)


def _find_owner_of_new(scratch: str) -> int | None:
    """Whose a file is that this process makes; None where it may make none."""
    path = os.path.join(scratch, f"probe.{new_id()}")
    try:
        descriptor = make_new(path)
    except OSError:
        return None
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        remove_file(path)
