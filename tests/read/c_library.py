"""The C library as other kernels and file systems would make it answer: what the readers' tests put in its place."""

from __future__ import annotations

import ctypes
import errno
from typing import Any


class Refusing:
    """Every call is refused, as under seccomp."""

    def __getattr__(self, name: str) -> object:
        def refuse(*_: object) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

        return refuse


class OnFileSystem(Refusing):
    """The file system has this number; all else is refused, as on an old kernel."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fstatfs(self, descriptor: int, answer: ctypes.Array[ctypes.c_char]) -> int:
        ctypes.memmove(answer, self._number.to_bytes(8, "little"), 8)
        return 0


class StatxSays:
    """``statx`` answers these alignments for O_DIRECT; without the bit 0x2000 in the mask it answers nothing."""

    def __init__(self, *, memory: int, offset: int, mask: int = 0x2000) -> None:
        self._words = {0: mask, 0x98: memory, 0x9C: offset}

    def statx(self, descriptor: int, path: bytes, flags: int, mask: int, answer: ctypes.Array[ctypes.c_char]) -> int:
        for at, word in self._words.items():
            ctypes.memmove(ctypes.byref(answer, at), word.to_bytes(4, "little"), 4)
        return 0


class MadviseSays:
    """``madvise`` fails with this number; all else is the real library's."""

    def __init__(self, code: int, library: Any) -> None:
        self._code = code
        self._library = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def madvise(self, address: int, length: int, advice: int) -> int:
        ctypes.set_errno(self._code)
        return -1
