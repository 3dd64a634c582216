"""Reads that the C library's own threads carry out: POSIX AIO, aio(7).

Threads of Python's that read stand in line for the GIL after each read. Beside an H200 sixteen of them, with all that
is to be done for an extent, came to 13 to 20 GB/s. One thread that begins reads, takes what has come and does the rest
has the GIL to itself. What was rejected: io_uring, which container runtimes block by default (docs/adr/0002).

glibc serves the requests of one descriptor one after another, so each read under way has a descriptor of its own, a
duplicate: a hundred and more for the reads that are under way together. Its threads end by themselves after a second
in which nobody wants them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from fastload._thread import start_thread
from fastload.errors import MemoryBudgetError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NO_SIGNAL = 1  # SIGEV_NONE
_DO_NOT_WAIT = 1  # LIO_NOWAIT; the operation 0 is LIO_READ
_POINTER_BYTES = 8
_DESCRIPTORS = 256


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


_BLOCK_BYTES = ctypes.sizeof(_ControlBlock)


class _ThreadLimit(ctypes.Structure):
    """``struct aioinit`` of glibc."""

    _fields_ = (("threads", ctypes.c_int), ("requests", ctypes.c_int), ("_rest", ctypes.c_int * 6))


class _Calls:
    """The library's functions. What only asks or queues keeps the GIL, what waits gives it up."""

    def __init__(self) -> None:
        brief, waiting = ctypes.PyDLL(None), ctypes.CDLL(None)
        self.begin, self.cancel = brief.lio_listio, brief.aio_cancel
        self.ask, self.take = brief.aio_error, brief.aio_return
        self.suspend: Any = waiting.aio_suspend
        self.begin.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self.ask.argtypes = self.take.argtypes = (ctypes.c_void_p,)
        self.take.restype = ctypes.c_ssize_t
        self.cancel.argtypes = (ctypes.c_int, ctypes.c_void_p)
        self.suspend.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


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


@cache
def begin_descriptor_room() -> Callable[[], None]:
    """Have room made for the descriptors of this process, once, on a thread of its own; what comes back waits for it.

    A process begins with room for 64 to 256 of them. For more the kernel makes a larger table, and waits for all CPUs
    to have seen it: here 7 to 15 ms; in the first load of a process beside an H200 reads took 60 ms longer to begin.
    """
    thread = threading.Thread(target=_make_descriptor_room, name="fastload-descriptors", daemon=True)
    try:
        start_thread(thread)
    except (MemoryBudgetError, UnsupportedError):
        return lambda: None  # it is made when it is needed, and whoever reads waits then
    return thread.join


def _make_descriptor_room() -> None:
    with suppress(OSError), open(os.devnull, "rb") as file:  # more than it may have: then it has no use for the room
        os.close(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, _DESCRIPTORS))


class BackgroundRead:
    """One read of a file into memory, in pieces, from its beginning until it was waited for or abandoned.

    One of both must be. At most a piece for each of the ``descriptors``: the same file's, and nobody else's meanwhile.
    """

    def __init__(self, calls: _Calls, descriptors: Sequence[int], offset: int, buffer: memoryview) -> None:
        self._calls = calls
        self._memory = ctypes.c_char.from_buffer(buffer)  # keeps the buffer while somebody writes to it
        address, piece_bytes = ctypes.addressof(self._memory), max(1, -(-len(buffer) // len(descriptors)))
        begins = range(0, len(buffer), piece_bytes)
        self._blocks = (_ControlBlock * len(begins))()
        for block, descriptor, at in zip(self._blocks, descriptors, begins, strict=False):
            block.descriptor, block.address, block.offset = descriptor, address + at, offset + at
            block.nbytes, block.notify = min(piece_bytes, len(buffer) - at), _NO_SIGNAL
        first = ctypes.addressof(self._blocks)
        self._addresses = range(first, first + len(begins) * _BLOCK_BYTES, _BLOCK_BYTES)
        self._list = (ctypes.c_void_p * len(begins))(*self._addresses)

    @classmethod
    def begin(cls, descriptors: Sequence[int], offset: int, buffer: memoryview) -> Self | None:
        """Have ``buffer`` filled from ``offset`` of the file on; None: this cannot be done here.

        Where there are no threads to be had it is begun all the same, and is no whole one when it is waited for.
        """
        calls = _load_calls()
        if calls is None:
            return None
        read = cls(calls, descriptors, offset, buffer)
        calls.begin(_DO_NOT_WAIT, read._list, len(read._list), None)
        return read

    def wait(self) -> bool:
        """Until nobody writes to the buffer any more; False if there was less than wanted, or an error."""
        is_whole = True
        for block, address in zip(self._blocks, self._addresses, strict=True):
            while (code := self._calls.ask(address)) == errno.EINPROGRESS:
                self._calls.suspend(ctypes.byref(ctypes.c_void_p(address)), 1, None)
            is_whole &= not code and self._calls.take(address) == block.nbytes
        return is_whole

    def abandon(self) -> None:
        """Nobody writes to the buffer any more when this returns."""
        for block, address in zip(self._blocks, self._addresses, strict=True):
            self._calls.cancel(block.descriptor, address)
        self.wait()
