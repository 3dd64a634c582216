"""What the kernel says about this process's own memory."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import warnings
from typing import TYPE_CHECKING

from fastload._address_space import address_of

if TYPE_CHECKING:
    from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


def pages_present(address: int, nbytes: int) -> list[bool] | None:
    """For each page from ``address`` on, whether there is memory behind it; None where nothing is mapped."""
    count = -(-nbytes // mmap.PAGESIZE)
    answer = (ctypes.c_ubyte * count)()
    if not _libc.mincore(address, nbytes, answer):
        return [bool(byte & 1) for byte in answer]
    assert ctypes.get_errno() == errno.ENOMEM
    return None


def present_bytes(memory: memoryview) -> int:
    """How much of ``memory``, which begins at a page border, takes real memory."""
    pages = pages_present(address_of(memory), len(memory))
    assert pages is not None
    return sum(pages) * mmap.PAGESIZE


def in_child(check: Callable[[], bool]) -> bool:
    """The answer of a forked child to ``check``, which must do next to nothing: other threads may hold locks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of just that
        child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)  # whatever happened: what the parent would do next is not the child's to do
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
