"""flock, where it tells the truth.

On Lustre, GPFS and some NFS mounts it is a no-op, or known to one node only, or fails with ENOLCK. So a lock that was
granted proves nothing until the same mount has refused it to somebody, and one that was not granted never proves that
its owner lives: a forked child may have inherited it. Locks belong to an open file, not to a process: two opens in one
process exclude each other, and closing a third does no harm.
"""

from __future__ import annotations

import errno
import fcntl
import os


def open_lock(path: str) -> int:
    """A descriptor to lock: writable if it may be, since NFS gives exclusive locks to such ones only."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, os.O_RDWR | flags)
    except OSError as exc:
        if exc.errno not in {errno.EACCES, errno.EROFS}:
            raise
        return os.open(path, os.O_RDONLY | flags)


def hold_shared(fd: int) -> bool:
    """Hold the file behind ``fd`` together with other readers, until it is closed; False where that is not possible.

    A descriptor that can only read will do. Never waits.
    """
    return _flock(fd, fcntl.LOCK_SH) == 0


def try_exclusive(fd: int) -> bool:
    """Hold the file behind ``fd`` alone, until it is closed; False where others hold it, or locks do not work.

    On NFS the descriptor must be able to write. Never waits.
    """
    return _flock(fd, fcntl.LOCK_EX) == 0


def flock_is_truthful(path: str) -> bool:
    """True if a lock on ``path`` is refused while another open of it holds one. Leaves no lock behind."""
    try:
        first = open_lock(path)
    except OSError:
        return False
    try:
        refusal = _flock(first, fcntl.LOCK_EX)
        return refusal == errno.EWOULDBLOCK or (refusal == 0 and _is_refused(path))
    finally:
        os.close(first)


def _is_refused(path: str) -> bool:
    try:
        second = open_lock(path)
    except OSError:
        return False
    try:
        return _flock(second, fcntl.LOCK_EX) == errno.EWOULDBLOCK
    finally:
        os.close(second)


def _flock(fd: int, operation: int) -> int:
    """0 if the lock was granted, else the errno: EWOULDBLOCK, or that of a file system that cannot lock."""
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0
