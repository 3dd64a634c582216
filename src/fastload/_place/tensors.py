"""Tensors over memory that is already filled. The only table of torch's dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastload._format.dtype import CASTABLE, DTYPES, UNTOUCHED
from fastload.errors import UnsupportedError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastload._format.header import TensorInfo
    from fastload._plan.ranges import Ranges

_TORCH_NAMES = {
    "BOOL": "bool",
    "F4": "float4_e2m1fn_x2",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}

TORCH_DTYPES: dict[str, torch.dtype | None] = {name: getattr(torch, own, None) for name, own in _TORCH_NAMES.items()}
"""By the spelling of the file; None: this torch is too old for it."""

CASTABLE_DTYPES = frozenset(TORCH_DTYPES[name] for name in CASTABLE)
"""What ``dtype=`` casts from and to, as torch's."""


def torch_layout(info: TensorInfo) -> tuple[torch.dtype, tuple[int, ...]]:
    """The torch dtype and shape in which a stored tensor is handed out.

    F4 is packed two to a byte, so the last dimension halves; where that is odd, and for F6, which torch lacks, it is
    the packed bytes, one-dimensional.

    Raises:
        UnsupportedError: the installed torch is too old for the dtype, or cannot hold the shape.
    """
    name, shape = info.dtype.name, info.shape
    if info.dtype.bits % 8:
        if name != "F4" or not shape or shape[-1] % 2:
            return torch.uint8, (info.nbytes,)
        shape = (*shape[:-1], shape[-1] // 2)
    dtype = TORCH_DTYPES[name]
    if dtype is None:
        raise UnsupportedError(f"torch {torch.__version__} has no dtype for {name}", "Install a newer torch")
    if not info.nbytes:
        _check_shape(info, shape)
    return dtype, shape


def check_layouts(infos: Iterable[TensorInfo]) -> None:
    """Raise ``UnsupportedError`` where :func:`torch_layout` would for one of ``infos``."""
    seen: set[str] = set()
    for info in infos:  # of a hundred thousand, most are alike
        if info.dtype.name not in seen or not info.nbytes:
            torch_layout(info)
            seen.add(info.dtype.name)


def _check_shape(info: TensorInfo, shape: tuple[int, ...]) -> None:
    """Lengths beside a 0 are not bounded by any file; torch's are, and so are their products."""
    try:
        torch.empty(shape, dtype=torch.float64, device="cpu")
    except (TypeError, RuntimeError) as exc:
        what = f"torch cannot hold {quoted(info.name)}, which is empty, of shape {list(info.shape)}"
        raise UnsupportedError(what, "Leave it out: tensors=") from exc


def view_bytes(memory: torch.Tensor, info: TensorInfo) -> torch.Tensor:
    """The tensor that the uint8 ``memory`` holds; it shares that memory and must be aligned for its dtype."""
    dtype, shape = torch_layout(info)
    return memory.view(dtype).view(shape)


def tensor_over(buffer: memoryview, info: TensorInfo) -> torch.Tensor:
    """The tensor that ``buffer`` holds, with a storage of its own: ``torch.save`` writes it and nothing else."""
    dtype, shape = torch_layout(info)
    if not info.nbytes:
        return torch.empty(shape, dtype=dtype, device="cpu")  # wherever the caller's default device may be
    flat = torch.frombuffer(buffer, dtype=dtype)
    return flat if len(shape) == 1 else flat.view(shape)  # of scales and norms there may be a hundred thousand


def cut_out(tensor: torch.Tensor, kept: Sequence[Ranges]) -> torch.Tensor:
    """What of ``tensor`` is ``kept`` in each dimension, in memory of its own."""
    views = [ranges or ((0, 0),) for ranges in kept]
    for dim, (begin, end) in ((dim, ranges[0]) for dim, ranges in enumerate(views) if len(ranges) == 1):
        tensor = tensor.narrow(dim, begin, end - begin)
    scattered = [dim for dim, ranges in enumerate(views) if len(ranges) > 1]
    for dim in scattered:
        tensor = torch.cat([tensor.narrow(dim, begin, end - begin) for begin, end in views[dim]], dim)
    return tensor if scattered else tensor.clone(memory_format=torch.contiguous_format)


def parse_cast(dtype: torch.dtype | str) -> torch.dtype:
    """What ``dtype=`` asks for, as torch's.

    Raises:
        UsageError: not one of F64, F32, F16, BF16.
    """
    for name in sorted(CASTABLE):
        known = TORCH_DTYPES[name]
        if known is not None and dtype in (name, known):
            return known
    raise UsageError(f"dtype {str(dtype)!r} cannot be cast to", f"Use one of {', '.join(sorted(CASTABLE))}")


def check_castable(infos: Iterable[TensorInfo]) -> None:
    """Refuse to cast a checkpoint of which some tensors may be quantised.

    Raises:
        UsageError: names the first such tensor.
    """
    for info in infos:
        if info.dtype.name not in CASTABLE and info.dtype.name not in UNTOUCHED:
            what = f"dtype= cannot cast {quoted(info.name)}, which is {info.dtype.name}"
            raise UsageError(f"{what}: without its scales that changes its meaning", "Load it as it is stored")


def is_castable(info: TensorInfo) -> bool:
    """True if ``dtype=`` applies to it; integers, booleans and complex numbers stay as they are."""
    return info.dtype.name in CASTABLE


assert _TORCH_NAMES.keys() | {"F6_E2M3", "F6_E3M2"} == DTYPES.keys()  # noqa: S101 - a new dtype must be given its place
