"""Idle I/O priority: the kernel serves this process's disk only when nobody else wants it (ioprio_set(2))."""

from __future__ import annotations

import ctypes
import errno
import os
import platform

_CALLS = {"x86_64": 251, "aarch64": 30}
_WHO_PROCESS = 1
_THIS_THREAD = 0
_CLASS_IDLE = 3 << 13


def lower_io_priority() -> str | None:
    """Lower it for this thread and those that it starts from now on; why not, where it cannot be.

    What schedules I/O by it (bfq, mq-deadline) is the node's choice: elsewhere it changes nothing.
    """
    number = _CALLS.get(platform.machine())
    if number is None:
        return f"no ioprio_set is known for {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(ctypes.c_long(number), _WHO_PROCESS, _THIS_THREAD, _CLASS_IDLE):
        code = ctypes.get_errno()
        return f"{errno.errorcode.get(code, code)}: {os.strerror(code)}"
    return None
