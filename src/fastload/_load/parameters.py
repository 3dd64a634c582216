"""A module's own tensors, and which tensor of a checkpoint goes into which."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fastload._place.tensors import CASTABLE_DTYPES, is_castable, torch_layout
from fastload.errors import UnsupportedError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fastload._format.header import TensorInfo

_SHOWN = 20
"""So many mismatches are spelled out."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where in a module the wanted tensors go."""

    device: torch.device
    """Where most of its bytes are."""
    tensors: Mapping[str, torch.Tensor]
    straight: frozenset[str]
    """Names whose bytes are read straight into place; the others are copied from a tensor of their own."""
    twins: frozenset[str]
    """Names whose memory another name has filled already (tied parameters stored twice): compared, not written."""


def own_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers of ``module`` by name, each name of a tied one.

    Raises:
        UsageError: some are on the meta device, where there is no memory.
        UnsupportedError: some are wrappers around other tensors, such as DTensor.
    """
    state: dict[str, Any] = module.state_dict(keep_vars=True)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    meta = [name for name, tensor in tensors.items() if tensor.is_meta]
    if meta:
        what = f"{len(meta)} of {len(tensors)} parameters have no memory, {quoted(meta[0])} for one: they are on meta"
        raise UsageError(what, 'Give them some first: module.to_empty(device="cuda")')
    for name, tensor in tensors.items():
        if hasattr(tensor, "__tensor_flatten__"):
            what = f"parameter {quoted(name)} is a {type(tensor).__name__}, a wrapper around other tensors"
            raise UnsupportedError(what, "Load before the module is wrapped, or use fastload.stream")
    return tensors


def match(
    own: Mapping[str, torch.Tensor], infos: Sequence[TensorInfo], *, strict: bool, dtype: torch.dtype | None
) -> list[str]:
    """The names whose stored dtype differs from their parameter's, so that they must be cast.

    Args:
        own: what :func:`own_tensors` gave, without what is not wanted.
        infos: the wanted tensors of the checkpoint.
        strict: whether each must have its counterpart.
        dtype: what the caller says the floating-point parameters are; None: whatever they are.

    Raises:
        UsageError: all mismatches at once.
    """
    stored = {info.name: info for info in infos}
    problems = list(_shape_problems(own, stored)) + list(_dtype_problems(own, stored, dtype))
    if strict:
        filled = {_storage(own[name]) for name in stored if name in own}
        problems += [f"missing: {quoted(n)}" for n, t in own.items() if n not in stored and _storage(t) not in filled]
        problems += [f"unexpected: {quoted(name)}" for name in stored if name not in own]
    if problems:
        shown = "; ".join(problems[:_SHOWN]) + (
            f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        )
        hint = "Make the module as its config says; strict=False leaves out what has no counterpart"
        raise UsageError(f"module and checkpoint do not match ({len(problems)}): {shown}", hint)
    return [name for name, info in stored.items() if name in own and own[name].dtype != torch_layout(info)[0]]


def _shape_problems(own: Mapping[str, torch.Tensor], stored: Mapping[str, TensorInfo]) -> Iterator[str]:
    for name, info in stored.items():
        shape = torch_layout(info)[1]
        if name in own and tuple(own[name].shape) != shape:
            yield f"shape: {quoted(name)} is {list(own[name].shape)}, stored {list(shape)}"


def _dtype_problems(
    own: Mapping[str, torch.Tensor], stored: Mapping[str, TensorInfo], dtype: torch.dtype | None
) -> Iterator[str]:
    for name, info in stored.items():
        if name not in own:
            continue
        has, casts = own[name].dtype, own[name].dtype in CASTABLE_DTYPES and is_castable(info)
        if has != torch_layout(info)[0] and not casts:
            yield f"dtype: {quoted(name)} is {has}, stored {info.dtype.name}, which is not cast"
        elif dtype is not None and casts and has != dtype:
            yield f"dtype: {quoted(name)} is {has}, asked for {dtype}"


def _storage(tensor: torch.Tensor) -> tuple[torch.device, int]:
    """What tied parameters have in common; an empty one shares with nobody."""
    return tensor.device, tensor.untyped_storage().data_ptr() or -id(tensor)


def assign(own: Mapping[str, torch.Tensor], infos: Iterable[TensorInfo], *, maps: bool) -> Destinations:
    """Which of ``infos`` are read straight into ``own`` (none if the reader ``maps``), copied there, or compared."""
    tensors = {info.name: own[info.name] for info in infos}
    device = _main_device(own.values())
    filled: dict[tuple[torch.device, int], list[torch.Tensor]] = {}
    straight: set[str] = set()
    twins: set[str] = set()
    for info in infos:
        tensor = tensors[info.name]
        sharing = filled.setdefault(_storage(tensor), [])
        if any(_is_same_memory(tensor, other) for other in sharing):
            twins.add(info.name)
        elif not sharing and not maps and tensor.device == device and _holds_exactly(tensor, info):
            straight.add(info.name)
        sharing.append(tensor)
    return Destinations(device, tensors, frozenset(straight), frozenset(twins))


def _holds_exactly(tensor: torch.Tensor, info: TensorInfo) -> bool:
    """True if the memory of ``tensor`` is the stored bytes, neither cast nor permuted."""
    return bool(info.nbytes) and tensor.is_contiguous() and tensor.dtype == torch_layout(info)[0]


def _is_same_memory(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype)


def _main_device(tensors: Iterable[torch.Tensor]) -> torch.device:
    sizes: Counter[torch.device] = Counter()
    for tensor in tensors:
        sizes[tensor.device] += tensor.nbytes
    largest = max(sizes, key=lambda device: sizes[device], default=torch.device("cpu"))
    return largest if largest.type == "cuda" else torch.device("cpu")
