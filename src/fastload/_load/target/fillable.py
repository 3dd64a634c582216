"""Which tensors take bytes that are written to their memory, and why the others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from fastload._place.writable import WritableMemory
from fastload.errors import UnsupportedError, quoted

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

_SHOWN = 20
"""So many obstacles are spelled out."""


class _Obstacle(NamedTuple):
    what: str
    cure: str


def check_fillable(tensors: Mapping[str, torch.Tensor], registered: Container[int]) -> None:
    """Each of ``tensors`` can be filled.

    Args:
        tensors: by name, none of them on the meta device.
        registered: ``id`` of each that is a parameter or buffer of the module.

    Raises:
        UnsupportedError: names all whose bytes would not be their value, be lost, or end the process.
    """
    writable = WritableMemory()
    found = [
        obstacle
        for name, tensor in tensors.items()
        if (obstacle := next(_obstacles(name, tensor, writable, is_own=id(tensor) in registered), None))
    ]
    if found:
        whats = [obstacle.what for obstacle in found[:_SHOWN]]
        whats += [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        cures = dict.fromkeys(obstacle.cure for obstacle in found)
        raise UnsupportedError("; ".join(whats), ". ".join(cures))


def _obstacles(name: str, tensor: torch.Tensor, writable: WritableMemory, *, is_own: bool) -> Iterator[_Obstacle]:
    """What is in the way; each may be asked only of a tensor without those before it."""
    parameter = f"parameter {quoted(name)}"
    if _is_wrapper(tensor):
        what = f"{parameter} is a {type(tensor).__name__}, a wrapper around other tensors"
        yield _Obstacle(what, "Load before the module is wrapped, or use fastload.stream")
    if not is_own:
        what = f"{quoted(name)} in the module's state_dict is no parameter or buffer of it (a hook or get_extra_state"
        yield _Obstacle(f"{what} made it): filled, it would be lost", "Use fastload.stream and set it yourself")
    if tensor.layout != torch.strided:
        cure = "Make it dense first (to_dense), or use fastload.stream"
        yield _Obstacle(f"{parameter} is stored as {tensor.layout}", cure)
    if tensor.is_conj() or tensor.is_neg():
        cure = "Register what .resolve_conj().resolve_neg() of it gives"
        yield _Obstacle(f"{parameter} is a lazily conjugated or negated view", cure)
    if _overlaps_itself(tensor):
        what = f"{parameter} is expanded: several of its elements are one place in memory"
        yield _Obstacle(what, "Register a .clone() of it")
    if not _has_storage(tensor):
        what = f"the storage of {parameter} holds {tensor.untyped_storage().nbytes():,} bytes, too few for its shape"
        yield _Obstacle(what, "Give it its memory back (untyped_storage().resize_), or gather the module first (FSDP)")
    if not _is_writable(tensor, writable):
        yield _Obstacle(f"{parameter} lies in memory that may only be read", "Register a .clone() of it")


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """True if operations see something else than the tensor's own memory, which may be none."""
    own_dispatch = type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return own_dispatch or hasattr(tensor, "__tensor_flatten__")


def _overlaps_itself(tensor: torch.Tensor) -> bool:
    """True if two elements may share memory, as those of an expanded tensor do."""
    reach = 0
    if not tensor.numel():
        return False
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _span_bytes(tensor: torch.Tensor) -> int:
    """From its first byte to behind its last one."""
    if not tensor.numel():
        return 0
    last = sum(stride * (size - 1) for stride, size in zip(tensor.stride(), tensor.shape, strict=True))
    return (last + 1) * tensor.element_size()


def _has_storage(tensor: torch.Tensor) -> bool:
    """False where the storage was made smaller than its tensors, as sharding libraries do to free memory."""
    span_bytes = _span_bytes(tensor)
    begin = int(tensor.storage_offset()) * tensor.element_size()  # torch 2.15 says that it may be a symbol
    return not span_bytes or begin + span_bytes <= tensor.untyped_storage().nbytes()


def _is_writable(tensor: torch.Tensor, writable: WritableMemory) -> bool:
    span_bytes = _span_bytes(tensor)
    if not span_bytes or tensor.device.type != "cpu":
        return True
    begin = tensor.data_ptr()
    return writable.holds(begin, begin + span_bytes)
