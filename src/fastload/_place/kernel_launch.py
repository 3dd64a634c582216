"""Launching a compiled Triton kernel straight through CUDA's driver.

Triton's own launcher takes ten microseconds of Python and gives up the GIL, for which sixteen readers stand in line. It
goes on being the one for kernels of a form that is not known here.
"""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING, Any

from fastload._place.stream_queue import check, load_calls

if TYPE_CHECKING:
    from collections.abc import Callable

_WARP = 32
_HOLDERS = {"u64": ctypes.c_uint64, "u32": ctypes.c_int32}


def read_parameters(ptx: str, name: str) -> list[str]:
    """The types of the parameters of kernel ``name``, as its assembly has them: ``u64`` for a pointer.

    Source: NVIDIA's PTX ISA, "Kernel Function Parameters". Triton adds pointers to scratch memory of its own at the
    end, in a number that depends on its version.
    """
    entry = re.search(rf"\.entry\s+{re.escape(name)}\s*\(([^)]*)\)", ptx)
    return re.findall(r"\.param\s+\.(\w+)", entry[1]) if entry else []


class KernelLaunch:
    """One kernel; used by one thread, since its arguments lie in memory that the next call overwrites."""

    def __init__(self, compiled: Any, holders: list[Any]) -> None:
        self._compiled = compiled  # which owns the function
        self._function = ctypes.c_void_p(compiled.function)
        self._threads = _WARP * compiled.metadata.num_warps
        self._shared_bytes = compiled.metadata.shared
        self._holders = holders
        self._pointers = (ctypes.c_void_p * len(holders))(*(ctypes.addressof(holder) for holder in holders))
        self._call = load_calls(ctypes.PyDLL).cuLaunchKernel

    def __call__(self, programs: int, stream: int, *arguments: int) -> None:
        """Queue it on ``stream``: so many ``programs``, with these ``arguments``, pointers among them as addresses."""
        for holder, value in zip(self._holders, arguments, strict=False):
            holder.value = value
        check(
            self._call(
                self._function, programs, 1, 1, self._threads, 1, 1, self._shared_bytes, stream, self._pointers, None
            )
        )


def find_launch(compiled: Any, signature: tuple[str, ...]) -> Callable[..., None] | None:
    """The launch of a kernel whose own parameters are of these types; None: it is of another form.

    What Triton adds stays null, which it may only where the kernel wants no scratch memory.
    """
    metadata = compiled.metadata
    found = read_parameters(compiled.asm["ptx"], metadata.name)
    scratch_bytes = metadata.global_scratch_size + metadata.profile_scratch_size
    is_plain = metadata.num_ctas == 1 and not metadata.launch_cooperative_grid and not metadata.launch_pdl
    added = found[len(signature) :]
    if tuple(found[: len(signature)]) != signature or set(added) - {"u64"} or scratch_bytes or not is_plain:
        return None
    return KernelLaunch(compiled, [_HOLDERS[kind](0) for kind in found])
