"""What a device does for one lane, queued on the lane's stream by address.

torch's own copies were rejected: slices, guards and a current stream to set and reset cost a quarter of a millisecond
of Python for each extent, while a PCIe 5 link takes 8 MiB in 0.15. And each of them gives up the GIL, for which sixteen
readers stand in line: beside an H200 a bare loop of reads and copies came to 42 GB/s of the link's 55 with torch's
copies, and in another run to 50 with these. They keep the GIL: they only queue, which takes the driver microseconds.
Not so from or to host memory that is not pinned, which waits: that gives it up.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

from fastload._read.cuda_driver import open_library

if TYPE_CHECKING:
    import torch

_ARGUMENTS = {
    "cuMemcpyHtoDAsync_v2": (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoDAsync_v2": (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoHAsync_v2": (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p),
    "cuLaunchKernel": (
        ctypes.c_void_p,  # the function
        *(ctypes.c_uint,) * 7,  # programs and threads, three numbers each, and bytes of shared memory
        ctypes.c_void_p,  # the stream
        ctypes.c_void_p,  # pointers to the arguments
        ctypes.c_void_p,
    ),
}


@cache
def load_calls(kind: type[ctypes.CDLL]) -> Any:
    """The driver's calls; ``kind`` is ``PyDLL``, which keeps the GIL, or ``CDLL``.

    Raises:
        UnsupportedError: there is no driver.
    """
    library = open_library(kind)
    for name, types in _ARGUMENTS.items():
        getattr(library, name).argtypes = types
    return library


class StreamQueue:
    """Copies on one stream. Nobody but the caller keeps the memory alive until the stream has passed them."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.handle: int = stream.cuda_stream
        self._brief = load_calls(ctypes.PyDLL)
        self._waiting = load_calls(ctypes.CDLL)

    def copy_in(self, to: int, of: int, nbytes: int, *, is_pinned: bool) -> None:
        """From host memory to the device."""
        library = self._brief if is_pinned else self._waiting
        check(library.cuMemcpyHtoDAsync_v2(to, of, nbytes, self.handle))

    def copy_within(self, to: int, of: int, nbytes: int) -> None:
        """From one place on the device to another."""
        check(self._brief.cuMemcpyDtoDAsync_v2(to, of, nbytes, self.handle))

    def copy_out(self, to: int, of: int, nbytes: int, *, is_pinned: bool) -> None:
        """From the device to host memory."""
        library = self._brief if is_pinned else self._waiting
        check(library.cuMemcpyDtoHAsync_v2(to, of, nbytes, self.handle))


def check(code: int) -> None:
    """Raise what torch would for an error of the driver; of it :mod:`~fastload._place.guarded` makes one of ours."""
    if code:
        raise RuntimeError(f"CUDA's driver answers a copy or a launch with error {code}")
