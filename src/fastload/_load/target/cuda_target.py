"""Loading into the memory of one CUDA device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._budget import Room, host_headroom
from fastload._load.target.target import ARENA_BYTES
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on, device_headroom, host_bytes, shares_memory
from fastload._place.guarded import GuardedPlacer, cuda_errors
from fastload._place.slots import SLOTS_PER_LANE
from fastload._plan.layout import Layout, LayoutRules, lay_out

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import torch

    from fastload._format.header import TensorInfo
    from fastload._load.target.keeping import Keeping
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._place.device_digests import DeviceDigests
    from fastload._place.pinned_ring import PinnedRing
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan

CUDA_EXTENT_BYTES = 16 << 20  # 16 MiB
_CUDA_HINT = "Load fewer tensors (tensors=), stream them, free device memory, or shard the model over more devices"
_ON_DEVICE = LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=ARENA_BYTES, own_bytes=1 << 20)


class CudaTarget:
    """The memory of one CUDA device."""

    slots_per_lane = SLOTS_PER_LANE
    extent_bytes = CUDA_EXTENT_BYTES

    def __init__(
        self, device: torch.device, keeping: Keeping, device_bytes: int | None, digests: DeviceDigests | None
    ) -> None:
        self._device = device
        self._keeping = keeping
        self._device_bytes = device_bytes
        self.digests = digests
        self.window_bytes = keeping.reads_ahead_bytes
        self.ring: PinnedRing | None = None
        """Slots that may be ready when lanes are opened."""

    @property
    def reads_ahead(self) -> bool:
        """See :class:`~fastload._load.target.target.Target`.

        Not without a ring, from which its lanes get their many slots.
        """
        return self.ring is not None

    def for_readers(self, names: Collection[str]) -> Target:
        """See :class:`~fastload._load.target.target.Target`."""
        return self

    def reading_less_ahead(self) -> Target | None:
        """See :class:`~fastload._load.target.target.Target`."""
        keeping = self._keeping.reading_less_ahead()
        if keeping is None:
            return None
        less = self._keeping_so(keeping)
        less.ring = self.ring
        return less

    def _keeping_so(self, keeping: Keeping) -> CudaTarget:
        return CudaTarget(self._device, keeping, self._device_bytes, self.digests)

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`~fastload._load.target.target.Target`."""
        return lay_out(infos, _ON_DEVICE, first_arena=first_arena)

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """See :class:`~fastload._load.target.target.Target`.

        A lane's slots on the host have one more of their size on the device.
        """
        on_device_bytes = staging.lanes * (1 + staging.landing_slots) * staging.slot_bytes
        needed_bytes = self._keeping.peak_bytes(plan) + on_device_bytes
        with cuda_errors(self._device):
            headroom = device_headroom(self._device, self._device_bytes)
            needed_bytes += staging.bytes if shares_memory(self._device) else 0
        on_host_bytes = staging.bytes + self._on_host_bytes(plan)
        on_host = Room(on_host_bytes, host_headroom(), "Make staging_bytes smaller")
        return [Room(needed_bytes, headroom, _CUDA_HINT), on_host]

    def _on_host_bytes(self, plan: Plan) -> int:
        """Host memory of the tensors that stay there: the one that is used and the one that is read."""
        return 2 * max(filter(self._keeping.stays_on_host, plan.arena_bytes), default=0)

    def _find_on_host(self, plan: Plan) -> frozenset[int]:
        return frozenset(n for n, nbytes in enumerate(plan.arena_bytes) if self._keeping.stays_on_host(nbytes))

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`~fastload._load.target.target.Target`."""

        def allocate(arena: int) -> torch.Tensor:
            nbytes = plan.arena_bytes[arena]
            return host_bytes(nbytes) if self._keeping.stays_on_host(nbytes) else allocate_on(self._device, nbytes)

        return self._open_guarded(plan, staging, allocate)

    def _open_guarded(self, plan: Plan, staging: Staging, allocate: Callable[[int], torch.Tensor]) -> Placer:
        with cuda_errors(self._device):
            placer = CudaPlacer(
                plan,
                Supply(allocate, self._find_on_host(plan)),
                self._device,
                slot_bytes=staging.slot_bytes,
                cast=self._keeping.cast,
                digesting=None if self.digests is None else self.digests.open,
            )
        if self.ring is not None:
            per_lane = staging.slots_per_lane
            placer.use(self.ring, at_first=1 if staging.is_ahead else per_lane, per_lane=per_lane)
        return GuardedPlacer(placer, self._device)
