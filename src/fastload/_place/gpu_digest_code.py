"""The digests' kernels as code that is brought along: what Triton makes of :mod:`~fastload._place.gpu_digest_kernel`.

For the generations of devices that there are it is assembled, and ready at once. For others, A100 or later, and for
drivers that do not take it, there is PTX for compute capability 8.0, which the driver compiles: without a compiler,
without Triton and without the GIL, but for 0.1 to 0.3 s, in which a load can have nothing else of the driver. Beside an
H200, a load of 8 GB in a fresh process was over before Triton had its kernels ready; and Triton needs a C compiler,
which images for serving often lack.
"""

from __future__ import annotations

import ctypes
import logging
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fastload._place.stream_queue import check, load_calls
from fastload._read.cuda_driver import load_driver
from fastload.errors import UnsupportedError

_log = logging.getLogger("fastload")

CAPABILITY = 80
ASSEMBLED = {8: 80, 9: 90, 10: 100, 12: 120}
"""By major compute capability, for which one: code for the first of a generation runs on all of it."""
_PARAMETERS = (ctypes.c_uint64, ctypes.c_int32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)
"""From where, how many bytes, to where; and two pointers to scratch memory, of which Triton wants none here: null."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel, in the shape that it was compiled in."""

    name: str
    lanes: int
    """Of one program: chunks of a slab, or slabs of a block."""
    threads: int
    shared_bytes: int


HASH_SLABS = Kernel("hash_slabs", lanes=128, threads=128, shared_bytes=4096)
HASH_BLOCKS = Kernel("hash_blocks", lanes=32, threads=32, shared_bytes=0)
KERNELS = (HASH_SLABS, HASH_BLOCKS)


def code_name(kernel: Kernel, capability: int | None = None) -> str:
    """The file with its code, packed: assembled for a ``capability``, or as PTX."""
    return f"{kernel.name}.{'ptx' if capability is None else f'sm_{capability}.cubin'}.z"


def read_code(kernel: Kernel, capability: int | None = None) -> bytes:
    """The code in that file: zlib packs it to less than a third."""
    return zlib.decompress(files("fastload._place").joinpath("kernels", code_name(kernel, capability)).read_bytes())


@cache
def load_function(kernel: Kernel, ordinal: int) -> int:
    """The handle of ``kernel`` on device ``ordinal``; valid as long as the process lives.

    Raises:
        UnsupportedError: the driver cannot compile it for this device, such as one older than A100.
    """
    driver = load_driver()
    driver.enter(ordinal)
    capability = ASSEMBLED.get(driver.major_capability(ordinal))
    if capability is not None:
        try:
            return driver.load_function(read_code(kernel, capability), kernel.name)
        except UnsupportedError as exc:  # an older driver, or a device that only claims to be of its generation
            _log.debug("%s for sm_%d is not taken, and compiled instead: %s", kernel.name, capability, exc)
    return driver.load_function(read_code(kernel), kernel.name)


class KernelLaunch:
    """Launches one kernel; for one thread, since its arguments lie in memory that the next call overwrites."""

    def __init__(self, kernel: Kernel, ordinal: int) -> None:
        """On device ``ordinal``. Raises ``UnsupportedError`` as :func:`load_function`."""
        self._function = load_function(kernel, ordinal)
        self._shape = (1, 1, kernel.threads, 1, 1, kernel.shared_bytes)
        self._arguments: list[Any] = [kind(0) for kind in _PARAMETERS]
        self._pointers = (ctypes.c_void_p * len(_PARAMETERS))(*map(ctypes.addressof, self._arguments))
        self._launch = load_calls(ctypes.PyDLL).cuLaunchKernel

    def __call__(self, programs: int, stream: int, *arguments: int) -> None:
        """Queue it on ``stream``: so many ``programs``, with these ``arguments``, pointers among them as addresses."""
        for holder, value in zip(self._arguments, arguments, strict=False):
            holder.value = value
        check(self._launch(self._function, programs, *self._shape, stream, self._pointers, None))
