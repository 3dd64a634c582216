"""What cuFile says of its own reads: past the host, or through it. Nothing else proves GPUDirect Storage.

An open driver does not, nor does a registered file: cuFile answers success, and reads by POSIX, where its kernel module
or the file system cannot do it. Its statistics of level 3 count, per GPU, the reads by ``nvidia-fs``, by PCI
peer-to-peer DMA and by POSIX (``cufile.h``, since cuFile 1.15). kvikio does not hand them on, so they are asked for by
ctypes of the library that it has loaded.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

from fastload.errors import UnsupportedError

_LIBRARY = "libcufile.so.0"
_LEVEL = 3
_ROOM_BYTES = 16 << 10  # 16 KiB: three times what cuFile 1.20 writes
_UNTOUCHED = 0xA5
_GPU_BYTES = 248
_MAX_GPUS = 16
_GPUS_AT = (1136, 1024)
"""Where the number of GPUs stands: as of cuFile 1.20, whose statistics of level 1 grew, and before."""
_P2P_AT, _NVFS_AT, _POSIX_AT = 56, 64, 72
"""In a GPU's part, counts of 64 bits: ``n_p2p_reads``, ``n_nvfs_reads``, ``n_posix_reads``."""
_HINT = "Whether reads go past the host cannot be shown; see docs/gpu.md"


class ReadCounts(NamedTuple):
    """Reads of this process by cuFile, on all GPUs."""

    past_host: int
    """By nvidia-fs or peer-to-peer DMA: GPUDirect Storage."""
    posix: int
    """Through host memory: cuFile's own compatibility mode."""

    def since(self, before: ReadCounts) -> ReadCounts:
        """What was added."""
        return ReadCounts(self.past_host - before.past_host, self.posix - before.posix)

    @property
    def is_gds(self) -> bool:
        """True if there were reads, and all of them went past the host."""
        return self.past_host > 0 and not self.posix


class _Status(ctypes.Structure):
    _fields_ = (("code", ctypes.c_int), ("cuda_code", ctypes.c_int))


class Statistics:
    """cuFile's, of a driver that is open."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def start(self) -> None:
        """Count from now on. Whoever set a lower level meanwhile is overruled; nobody's counts are reset.

        Raises:
            UnsupportedError: this cuFile has no such statistics, or its driver is not open.
        """
        self._call("cuFileSetStatsLevel", _LEVEL)
        self._call("cuFileStatsStart")

    def read(self) -> ReadCounts:
        """The counts so far.

        Raises:
            UnsupportedError: they are not in a form that is known here.
        """
        room = (ctypes.c_ubyte * _ROOM_BYTES)(*([_UNTOUCHED] * _ROOM_BYTES))
        self._call("cuFileGetStatsL3", ctypes.byref(room))
        return parse_counts(bytes(room))

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as exc:
            raise UnsupportedError(f"this cuFile has no {name}", "Install nvidia-cufile 1.15 or later") from exc
        function.restype = _Status
        code = function(*arguments).code
        if code:
            raise UnsupportedError(f"cuFile answers {name} with error {code}", _HINT)


def parse_counts(room: bytes) -> ReadCounts:
    """The counts in what cuFile wrote into ``room``, which was full of 0xA5 before.

    It says neither the version nor the size of what it writes, and writes as many GPUs as there are, or all sixteen:
    only a number of GPUs that fits the end of what was written is believed.

    Raises:
        UnsupportedError: none does.
    """
    written = len(room.rstrip(bytes([_UNTOUCHED])))
    for at in _GPUS_AT:
        gpus = int.from_bytes(room[at : at + 4], "little")
        begin = at + 8
        ends = {at + 4, begin} if not gpus else {begin + gpus * _GPU_BYTES}
        if gpus <= _MAX_GPUS and written in ends | {begin + _MAX_GPUS * _GPU_BYTES}:
            parts = [room[begin + n * _GPU_BYTES : begin + (n + 1) * _GPU_BYTES] for n in range(gpus)]
            past_host = sum(_count(part, _P2P_AT) + _count(part, _NVFS_AT) for part in parts)
            return ReadCounts(past_host, sum(_count(part, _POSIX_AT) for part in parts))
    raise UnsupportedError(f"cuFile's statistics have a form that is not known here ({written} bytes)", _HINT)


def _count(part: bytes, at: int) -> int:
    return int.from_bytes(part[at : at + 8], "little")


def load_statistics() -> Statistics:
    """Those of the library that kvikio has loaded.

    Raises:
        UnsupportedError: it has loaded none.
    """
    try:
        return Statistics(ctypes.CDLL(_LIBRARY))
    except OSError as exc:
        raise UnsupportedError(f"no cuFile: {exc}", "Install nvidia-cufile, which kvikio names") from exc
