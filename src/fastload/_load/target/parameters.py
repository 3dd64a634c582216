"""A module's own tensors, and which tensor of a checkpoint goes into which.

What is tied is told by memory, byte by byte: two names of one tensor, a transposed view, the parts of a fused weight.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fastload._load.target.fillable import check_fillable
from fastload._load.target.has_memory import check_has_memory
from fastload._place.tensors import CASTABLE_DTYPES, is_castable, torch_layout
from fastload.errors import UnsupportedError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from fastload._format.header import TensorInfo

_SHOWN = 20
"""So many mismatches are spelled out."""
_MAX_RUNS = 1 << 20
"""In so many pieces the memory of one parameter may lie."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where in a module the wanted tensors go."""

    device: torch.device
    """Where most of its bytes are."""
    tensors: Mapping[str, torch.Tensor]
    straight: frozenset[str]
    """Names whose bytes are read straight into place; the others are copied from a tensor of their own."""
    twins: frozenset[str]
    """Names whose memory other names have filled already (tied parameters stored twice): compared, not written."""


def own_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers of ``module`` by name, each name of a tied one.

    Raises:
        UsageError: it is no module; some have no memory yet: they are on the meta device, or lazy.
        UnsupportedError: some cannot be filled in place, or are not the module's own.
    """
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"load_into got {type(module).__name__}", "Give a torch.nn.Module")
    state: dict[str, Any] = module.state_dict(keep_vars=True)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    check_has_memory(module, tensors)
    registered = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    with torch.no_grad():
        here = {name: _local(tensor) for name, tensor in tensors.items()}
    registered |= {id(here[name]) for name, tensor in tensors.items() if id(tensor) in registered}
    check_fillable(here, registered)
    return here


def find_sharded(module: torch.nn.Module) -> dict[str, Any]:
    """Parameters and persistent buffers of ``module`` that are DTensors: they say which part of them is here."""
    state: dict[str, Any] = module.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if _is_sharded(value)}


def _local(tensor: Any) -> torch.Tensor:
    """The memory of ``tensor`` that is in this process."""
    local: torch.Tensor = tensor.to_local() if _is_sharded(tensor) else tensor
    return local


def _is_sharded(value: object) -> bool:
    """True for a DTensor; nobody has one who has not imported its module, which takes a second."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


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
    hint = "Make the module as its config says"
    if strict and not problems:
        hint += "; strict=False leaves out what has no counterpart"
    if strict:
        problems += [f"missing: {quoted(name)}" for name in _unfilled(own, stored)]
        problems += [f"unexpected: {quoted(name)}" for name in stored if name not in own]
    if problems:
        shown = "; ".join(problems[:_SHOWN]) + (
            f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        )
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


def _unfilled(own: Mapping[str, torch.Tensor], stored: Mapping[str, TensorInfo]) -> Iterator[str]:
    """Names without a stored tensor, not all of whose bytes are those of names with one."""
    filled = _Filled()
    for name in stored:
        if name in own:
            filled.add(name, own[name])
    tied = {id(own[name]) for name in stored if name in own}  # an empty tensor has no bytes to go by
    for name, tensor in own.items():
        if name in stored or id(tensor) in tied:
            continue
        if not tensor.nbytes or filled.overlap_with(name, tensor).nbytes < tensor.nbytes:
            yield name


def assign(
    own: Mapping[str, torch.Tensor], infos: Iterable[TensorInfo], *, maps: bool, cut: Container[str] = ()
) -> Destinations:
    """Which of ``infos`` are read straight into ``own`` (none if the reader ``maps``), copied there, or compared.

    Those that are ``cut`` after they were read cannot be read straight.

    Raises:
        UnsupportedError: two of them overlap in part, so that each would spoil the other.
    """
    tensors = {info.name: own[info.name] for info in infos}
    device = main_device(own.values())
    filled = _Filled()
    straight: set[str] = set()
    twins: set[str] = set()
    for info in infos:
        tensor = tensors[info.name]
        overlap = filled.overlap_with(info.name, tensor)
        if overlap.nbytes == tensor.nbytes > 0:
            twins.add(info.name)
            continue
        if overlap.nbytes:
            what = f"parameters {quoted(overlap.name)} and {quoted(info.name)} share some of their memory, but not all"
            raise UnsupportedError(what, "Give each its own: replace one by a .clone(), or use fastload.stream")
        if not maps and info.name not in cut and tensor.device == device and _holds_exactly(tensor, info):
            straight.add(info.name)
        filled.add(info.name, tensor)
    return Destinations(device, tensors, frozenset(straight), frozenset(twins))


class _Overlap(NamedTuple):
    """What memory a tensor has in common with filled ones, and the name of the last of these."""

    nbytes: int
    name: str


class _Filled:
    """Memory of a module whose bytes come from the checkpoint."""

    def __init__(self) -> None:
        self._runs: dict[torch.device, list[tuple[int, int, str]]] = {}
        """``[begin, end)`` and by which name; sorted, and none overlaps another one."""

    def overlap_with(self, name: str, tensor: torch.Tensor) -> _Overlap:
        """How much of ``tensor`` is filled already."""
        nbytes, other = 0, ""
        for begin, end in _runs(name, tensor):
            for filled in self._within(tensor.device, begin, end):
                nbytes += min(end, filled[1]) - max(begin, filled[0])
                other = filled[2]
        return _Overlap(nbytes, other)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """``tensor`` is filled; what of it was so before stays another name's."""
        for begin, end in _runs(name, tensor):
            at = begin
            for filled_begin, filled_end, _ in [*self._within(tensor.device, begin, end), (end, end, "")]:
                if at < filled_begin:
                    insort(self._runs[tensor.device], (at, filled_begin, name))
                at = filled_end

    def _within(self, device: torch.device, begin: int, end: int) -> Sequence[tuple[int, int, str]]:
        """The filled runs that share bytes with ``[begin, end)``."""
        runs = self._runs.setdefault(device, [])
        first = bisect_left(runs, (begin,))
        if first and runs[first - 1][1] > begin:
            first -= 1
        return runs[first : bisect_left(runs, (end,))]


def _runs(name: str, tensor: torch.Tensor) -> list[tuple[int, int]]:
    """The pieces ``[begin, end)`` of memory that ``tensor`` consists of, sorted.

    Raises:
        UnsupportedError: there are a great many.
    """
    if not tensor.numel():
        return []
    length = tensor.element_size()
    steps: list[range] = []
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        step = stride * tensor.element_size()
        if step == length and not steps:
            length *= size
        elif size > 1:
            steps.append(range(0, step * size, step))
    if math.prod(map(len, steps)) > _MAX_RUNS:
        what = f"parameter {quoted(name)} lies in more than {_MAX_RUNS:,} pieces of memory"
        raise UnsupportedError(what, "Register what .contiguous() of it gives")
    begins = sorted(tensor.data_ptr() + sum(offsets) for offsets in product(*steps))
    return [(begin, begin + length) for begin in begins]


def _holds_exactly(tensor: torch.Tensor, info: TensorInfo) -> bool:
    """True if the memory of ``tensor`` is the stored bytes, neither cast nor permuted."""
    return bool(info.nbytes) and tensor.is_contiguous() and tensor.dtype == torch_layout(info)[0]


def main_device(tensors: Iterable[torch.Tensor]) -> torch.device:
    """The CUDA device on which most of them are; else the CPU."""
    sizes: Counter[torch.device] = Counter()
    for tensor in tensors:
        sizes[tensor.device] += tensor.nbytes
    largest = max(sizes, key=lambda device: sizes[device], default=torch.device("cpu"))
    return largest if largest.type == "cuda" else torch.device("cpu")
