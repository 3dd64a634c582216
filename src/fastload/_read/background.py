"""Reads that the C library's own threads carry out: POSIX AIO, aio(7).

Threads of Python's that read stand in line for the GIL after each read. Beside an H200 sixteen of them, with all that
is to be done for an extent, came to 13 to 20 GB/s. One thread that begins reads, takes what has come and does the rest
has the GIL to itself. What was rejected: io_uring, which container runtimes block by default (docs/adr/0002).

glibc serves the requests of one descriptor one after another, so each read under way has a descriptor of its own, a
duplicate. Its threads end by themselves after a second in which nobody wants them.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any, Self

_NO_SIGNAL = 1  # SIGEV_NONE
_POINTER_BYTES = 8


class _ControlBlock(ctypes.Structure):
    """``struct aiocb`` of glibc on 64 bits, <bits/types/struct_aiocb.h>; what begins with an underscore is its own."""

    _fields_ = (
        ("descriptor", ctypes.c_int),
        ("operation", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("address", ctypes.c_void_p),
        ("nbytes", ctypes.c_size_t),
        ("signal_value", ctypes.c_void_p),
        ("signal_number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("_notify_rest", ctypes.c_char * 48),
        ("_next", ctypes.c_void_p),
        ("_absolute_priority", ctypes.c_int),
        ("_policy", ctypes.c_int),
        ("_error", ctypes.c_int),
        ("_return", ctypes.c_ssize_t),
        ("offset", ctypes.c_int64),
        ("_reserved", ctypes.c_char * 32),
    )


class _ThreadLimit(ctypes.Structure):
    """``struct aioinit`` of glibc."""

    _fields_ = (("threads", ctypes.c_int), ("requests", ctypes.c_int), ("_rest", ctypes.c_int * 6))


class _Calls:
    """The library's functions. What only asks or queues keeps the GIL, what waits gives it up."""

    def __init__(self) -> None:
        brief, waiting = ctypes.PyDLL(None), ctypes.CDLL(None)
        self.begin, self.ask, self.take = brief.aio_read, brief.aio_error, brief.aio_return
        self.take.restype = ctypes.c_ssize_t
        self.cancel: Any = brief.aio_cancel
        self.suspend: Any = waiting.aio_suspend


@cache
def _load_calls() -> _Calls | None:
    """None where this is not glibc on 64 bits, whose structures are known."""
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (OSError, ValueError):
        return None
    is_known = version.startswith("glibc") and ctypes.sizeof(ctypes.c_void_p) == _POINTER_BYTES
    return _Calls() if is_known else None


def can_read_in_background() -> bool:
    """True where reads can be carried out so."""
    return _load_calls() is not None


@cache
def limit_threads(count: int) -> None:
    """At most so many reads of this process are carried out at once. The first call counts, before the first read."""
    ctypes.CDLL(None).aio_init(ctypes.byref(_ThreadLimit(count, count)))


class BackgroundRead:
    """One read of a file into memory, from its beginning until it was waited for or abandoned: one of them must be."""

    def __init__(self, calls: _Calls, descriptor: int, offset: int, buffer: memoryview) -> None:
        self._calls = calls
        self._memory = ctypes.c_char.from_buffer(buffer)  # keeps the buffer while somebody writes to it
        self._block = _ControlBlock(
            descriptor=descriptor,
            address=ctypes.addressof(self._memory),
            nbytes=len(buffer),
            notify=_NO_SIGNAL,
            offset=offset,
        )
        self._pointer = ctypes.pointer(self._block)
        self._list = (ctypes.POINTER(_ControlBlock) * 1)(self._pointer)

    @classmethod
    def begin(cls, descriptor: int, offset: int, buffer: memoryview) -> Self | None:
        """Have ``buffer`` filled from ``offset`` of ``descriptor`` on, which nobody else reads from meanwhile.

        None: this cannot be done here, or not now, for want of threads.
        """
        calls = _load_calls()
        if calls is None:
            return None
        read = cls(calls, descriptor, offset, buffer)
        return None if calls.begin(read._pointer) else read

    def wait(self) -> int:
        """The number of bytes, once the read is over: fewer than wanted at the end of a file, -1 for an error."""
        while (code := self._calls.ask(self._pointer)) == errno.EINPROGRESS:
            self._calls.suspend(self._list, 1, None)
        count: int = self._calls.take(self._pointer)
        return -1 if code else count

    def abandon(self) -> None:
        """Nobody writes to the buffer any more when this returns."""
        self._calls.cancel(self._block.descriptor, self._pointer)
        self.wait()
