"""A module's own parameters and buffers as a target: what has the stored dtype is read straight into their memory."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from fastload._address_space import map_anonymous
from fastload._load.target.cuda_early import choose_digests
from fastload._load.target.cuda_target import CudaTarget
from fastload._load.target.host_target import HostTarget
from fastload._load.target.mapped_target import choose_mapped
from fastload._place.cuda_memory import allocate_on
from fastload._place.host import HostPlacer
from fastload._plan.layout import Layout, lay_out_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.header import TensorInfo
    from fastload._load.target.keeping import Keeping
    from fastload._load.target.parameters import Destinations
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._place.device_digests import DeviceDigests
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan
    from fastload.options import Settings


def _lay_out(infos: Sequence[TensorInfo], destinations: Destinations, first_arena: int) -> Layout:
    """Each tensor apart; memory that exists already needs no room."""
    layout = lay_out_apart(infos, first_arena=first_arena)
    return replace(layout, arena_bytes=tuple(0 if i.name in destinations.straight else i.nbytes for i in infos))


class HostModuleTarget(HostTarget):
    """A module in host memory."""

    def __init__(self, destinations: Destinations, keeping: Keeping) -> None:
        super().__init__(keeping)
        self._destinations = destinations

    def _keeping_so(self, keeping: Keeping) -> HostModuleTarget:
        return HostModuleTarget(self._destinations, keeping)

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.target.Target`."""
        return _lay_out(infos, self._destinations, first_arena)

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`~fastload._load.target.target.Target`."""
        names = {placement.arena: placement.info.name for placement in plan.placements}

        def allocate(arena: int) -> memoryview:
            if names[arena] in self._destinations.straight:
                return _host_memory(self._destinations.tensors[names[arena]])
            return map_anonymous(plan.arena_bytes[arena])

        return HostPlacer(plan, allocate, slot_bytes=staging.slot_bytes, cast=None)


class CudaModuleTarget(CudaTarget):
    """A module on a CUDA device."""

    def __init__(
        self, destinations: Destinations, keeping: Keeping, device_bytes: int | None, digests: DeviceDigests | None
    ) -> None:
        super().__init__(destinations.device, keeping, device_bytes, digests)
        self._destinations = destinations

    def _keeping_so(self, keeping: Keeping) -> CudaModuleTarget:
        return CudaModuleTarget(self._destinations, keeping, self._device_bytes, self.digests)

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.target.Target`."""
        return _lay_out(infos, self._destinations, first_arena)

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`~fastload._load.target.target.Target`."""
        names = {placement.arena: placement.info.name for placement in plan.placements}
        device = self._destinations.device

        def allocate(arena: int) -> torch.Tensor:
            if names[arena] in self._destinations.straight:
                return _device_memory(self._destinations.tensors[names[arena]])
            return allocate_on(device, plan.arena_bytes[arena])

        return self._open_guarded(plan, staging, allocate)


def choose_module_target(destinations: Destinations, keeping: Keeping, settings: Settings, fetched: Fetched) -> Target:
    """The target that is the module's own memory; for ``reader="mmap"`` the page cache, from which all is copied."""
    if settings.reader == "mmap":
        return choose_mapped(destinations.device, keeping, fetched.checkpoint, copies_all=True)
    if destinations.device.type == "cuda":
        return CudaModuleTarget(
            destinations, keeping, settings.device_bytes, choose_digests(destinations.device, fetched.evidence)
        )
    return HostModuleTarget(destinations, keeping)


def _host_memory(tensor: torch.Tensor) -> memoryview:
    """The tensor's bytes. ``tensor.numpy()`` would not do: it knows no bfloat16 and refuses what requires grad."""
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _device_memory(tensor: torch.Tensor) -> torch.Tensor:
    begin = tensor.storage_offset() * tensor.element_size()
    memory = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    memory.set_(tensor.untyped_storage(), begin, (tensor.nbytes,), (1,))
    return memory
