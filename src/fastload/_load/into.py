"""Loading into a module's own parameters and buffers: what has the stored dtype is read straight into its memory."""

from __future__ import annotations

import ctypes
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from fastload._load.target import CudaTarget, HostTarget, Keeping, allocate_host
from fastload._place.cuda import CudaPlacer, allocate_on
from fastload._place.host import HostPlacer
from fastload._place.tensors import CASTABLE_DTYPES, is_castable, torch_layout
from fastload._plan.layout import Layout, lay_out_apart
from fastload.errors import FastloadError, UnsupportedError, UsageError, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from fastload._format.header import TensorInfo
    from fastload._load.stream import Stream
    from fastload._load.target import Target
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan
    from fastload.report import Report

_SHOWN = 20
_UNDEFINED = "The module's content is undefined now: load into it again, or discard it"


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


def _lay_out(infos: Sequence[TensorInfo], destinations: Destinations, first_arena: int) -> Layout:
    """Each tensor apart; memory that exists already needs no room."""
    layout = lay_out_apart(infos, first_arena=first_arena)
    return replace(layout, arena_bytes=tuple(0 if i.name in destinations.straight else i.nbytes for i in infos))


class HostModuleTarget(HostTarget):
    """A module in host memory."""

    def __init__(self, destinations: Destinations, keeping: Keeping) -> None:
        super().__init__(keeping)
        self._destinations = destinations

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.Target`."""
        return _lay_out(infos, self._destinations, first_arena)

    def open_placer(self, plan: Plan, slot_bytes: int) -> Placer:
        """See :class:`~fastload._load.target.Target`."""
        names = {placement.arena: placement.info.name for placement in plan.placements}

        def allocate(arena: int) -> memoryview:
            if names[arena] in self._destinations.straight:
                return _host_memory(self._destinations.tensors[names[arena]])
            return allocate_host(plan.arena_bytes[arena])

        return HostPlacer(plan, allocate, slot_bytes=slot_bytes, cast=None)


class CudaModuleTarget(CudaTarget):
    """A module on a CUDA device."""

    def __init__(self, destinations: Destinations, keeping: Keeping, device_bytes: int | None) -> None:
        super().__init__(destinations.device, keeping, device_bytes)
        self._destinations = destinations

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.Target`."""
        return _lay_out(infos, self._destinations, first_arena)

    def open_placer(self, plan: Plan, slot_bytes: int) -> Placer:
        """See :class:`~fastload._load.target.Target`."""
        names = {placement.arena: placement.info.name for placement in plan.placements}
        device = self._destinations.device

        def allocate(arena: int) -> torch.Tensor:
            if names[arena] in self._destinations.straight:
                return _device_memory(self._destinations.tensors[names[arena]])
            return allocate_on(device, plan.arena_bytes[arena])

        return CudaPlacer(plan, allocate, device, slot_bytes=slot_bytes, cast=None)


def choose_target(destinations: Destinations, keeping: Keeping, device_bytes: int | None) -> Target:
    """The target that is the module's own memory."""
    if destinations.device.type == "cuda":
        return CudaModuleTarget(destinations, keeping, device_bytes)
    return HostModuleTarget(destinations, keeping)


def _host_memory(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes. ``tensor.numpy()`` would not do: it knows no bfloat16 and refuses what requires grad."""
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _device_memory(tensor: torch.Tensor) -> torch.Tensor:
    begin = tensor.storage_offset() * tensor.element_size()
    memory = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    memory.set_(tensor.untyped_storage(), begin, (tensor.nbytes,), (1,))
    return memory


def fill(stream: Stream, destinations: Destinations) -> Report:
    """Bring all of ``stream`` into place.

    Raises:
        FastloadError: as the stream says; the module's content is undefined then.
        UsageError: the checkpoint holds two different tensors for parameters that are tied.
    """
    try:
        with stream, torch.no_grad():
            for name, tensor in stream:
                _put(name, tensor, destinations)
    except FastloadError as exc:
        hint = getattr(exc, "hint", "")
        exc.hint = f"{hint}. {_UNDEFINED}" if hint else _UNDEFINED  # type: ignore[attr-defined] # all of ours have it
        raise
    except BaseException as exc:
        exc.add_note(_UNDEFINED)
        raise
    return stream.report


def _put(name: str, tensor: torch.Tensor, destinations: Destinations) -> None:
    own = destinations.tensors[name]
    if name in destinations.twins:
        if not _same_bytes(own, tensor.to(own.device, own.dtype)):
            what = f"parameter {quoted(name)} is tied to another one, but their stored tensors differ"
            hint = "Untie them (tie_word_embeddings), or load the checkpoint that belongs to the module"
            raise UsageError(what, hint)
    elif name not in destinations.straight:
        own.copy_(tensor)
    if not own.is_inference():
        torch.autograd.graph.increment_version(own)  # so that backward notices, as it does for any in-place write


def _same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """NaNs included, which are unequal to themselves."""
    return torch.equal(a.contiguous().flatten().view(torch.uint8), b.contiguous().flatten().view(torch.uint8))
