"""Where the tensors shall live: what that means for the layout, for the room they need, and for who places them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from fastload._budget import Room, host_headroom
from fastload._load.target.staging import Staging, divide_ahead, divide_staging
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on, device_headroom, host_bytes, shares_memory
from fastload._place.device_digests import DeviceDigests
from fastload._place.guarded import GuardedPlacer, cuda_errors
from fastload._place.host import GIVES_PAGES_BACK_BYTES, HostPlacer
from fastload._place.in_place import InPlacePlacer
from fastload._place.mapped import MappedPlacer
from fastload._place.memory import map_anonymous
from fastload._place.pinned_ring import PinnedRing
from fastload._place.slots import SLOTS_PER_LANE, room_for_digests
from fastload._place.tensors import is_castable
from fastload._plan.layout import Layout, LayoutRules, lay_out, lay_out_mapped
from fastload._read.background import begin_descriptor_room
from fastload._read.choose import memory_depth
from fastload._read.kernel import DIRECT_ALIGNMENT_BYTES
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import torch

    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._fetch.evidence.evidence import Evidence
    from fastload._format.checkpoint import Checkpoint, Shard
    from fastload._format.header import TensorInfo
    from fastload._place.placer import Placer
    from fastload._plan.layout import Placement
    from fastload._plan.plan import Plan
    from fastload.options import Settings

_HOST_EXTENT_BYTES = 8 << 20  # 8 MiB
_MAPPED_EXTENT_BYTES = 64 << 20  # 64 MiB: nothing is copied, so that an extent costs the same at any size
_CUDA_EXTENT_BYTES = 16 << 20  # 16 MiB
_ARENA_BYTES = 64 << 20  # 64 MiB
_HOST_HINT = "Load fewer tensors (tensors=), stream them one by one, or give this process more memory"
_CUDA_HINT = "Load fewer tensors (tensors=), stream them, free device memory, or shard the model over more devices"

_WHOLE_SHARDS = LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=None, own_bytes=None)
"""One huge-page mapping per shard: nothing is lost between tensors, and a read goes straight into place."""
_IN_PLACE = replace(_WHOLE_SHARDS, read_alignment=DIRECT_ALIGNMENT_BYTES)
"""The same for reads past the page cache, if the tensors may be aligned no better than in the file."""
_PIECES = LayoutRules(
    start_alignment=64, tensor_alignment=1, arena_bytes=_ARENA_BYTES, own_bytes=GIVES_PAGES_BACK_BYTES
)
"""For tensors that are let go one after another. The pages of a large one go with its mapping: what gives back those of
a shared one runs in Python, where Ctrl-C is lost."""
_ON_DEVICE = LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=_ARENA_BYTES, own_bytes=1 << 20)


class Target(Protocol):
    """A kind of memory to load into."""

    slots_per_lane: int
    extent_bytes: int
    """The largest extent that suits it."""
    window_bytes: int | None
    """How far reading may run ahead of taking; None: as far as it likes, since all is kept."""
    digests: DeviceDigests | None
    """Taken where the bytes arrive; None: on the CPU."""

    @property
    def reads_ahead(self) -> bool:
        """True where one thread may have others read; its lanes have many slots then."""

    def for_readers(self, names: Collection[str]) -> Target:
        """The same memory, laid out for who reads into it."""

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """Places for the wanted tensors of one shard."""

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """What ``plan`` takes of each kind of memory; nothing has been allocated."""

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """Who brings the plan's bytes into place."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What becomes of the tensors."""

    keeps_all: bool
    """True: they all stay until the end; False: the caller takes one after another."""
    window_bytes: int
    """How far reading runs ahead where not all bytes are kept as they were read."""
    cast: torch.dtype | None
    is_cut: bool = False
    """True: of some tensors that are read as a whole, only a part stays."""
    host_above_bytes: int | None = None
    """What of a device's tensors stays in host memory: those that are larger; None: none."""

    def stays_on_host(self, nbytes: int) -> bool:
        """True for memory of so many bytes that shall not be the device's."""
        return self.host_above_bytes is not None and nbytes > self.host_above_bytes

    @property
    def reads_ahead_bytes(self) -> int | None:
        """The pipeline's window. What is cast or cut gives its stored bytes back, which need not all be there."""
        return None if self.keeps_all and self.cast is None and not self.is_cut else self.window_bytes

    def peak_bytes(self, plan: Plan) -> int:
        """The most memory the tensors take at any time."""
        arenas = [nbytes for nbytes in plan.arena_bytes if not self.stays_on_host(nbytes)]
        stored = sum(arenas)
        if self.reads_ahead_bytes is not None:
            stored = min(stored, self.reads_ahead_bytes + 2 * max(arenas, default=0))
        return stored + self.cast_bytes(plan)

    def cast_bytes(self, plan: Plan) -> int:
        """Memory of the cast tensors that exist at once."""
        if self.cast is None:
            return 0
        width = self.cast.itemsize * 8
        sizes = [p.info.nbytes * width // p.info.dtype.bits for p in plan.placements if is_castable(p.info)]
        return sum(sizes) if self.keeps_all else 2 * max(sizes, default=0)

    def copied_bytes(self, plan: Plan, *, copies_all: bool) -> int:
        """Memory of the copies of what is mapped that exist at once; a cast lets go of its copy."""
        if copies_all or not self.keeps_all:
            copied = [p for p in plan.placements if copies_all or self._casts(p) or not p.is_aligned]
            return 2 * max((p.info.nbytes for p in copied), default=0)
        passing = max((p.info.nbytes for p in plan.placements if self._casts(p)), default=0)
        return passing + sum(p.info.nbytes for p in plan.placements if not p.is_aligned and not self._casts(p))

    def _casts(self, placement: Placement) -> bool:
        return self.cast is not None and is_castable(placement.info)


class HostTarget:
    """Fresh host memory."""

    reads_ahead = False
    slots_per_lane = 1
    extent_bytes = _HOST_EXTENT_BYTES
    digests: DeviceDigests | None = None

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping
        self._rules = _WHOLE_SHARDS if keeping.reads_ahead_bytes is None else _PIECES
        self.window_bytes = keeping.reads_ahead_bytes

    def for_readers(self, names: Collection[str]) -> Target:
        """See :class:`Target`."""
        return InPlaceTarget(self._keeping) if "direct" in names and self.window_bytes is None else self

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`Target`."""
        return lay_out(infos, self._rules, first_arena=first_arena)

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """See :class:`Target`."""
        return [Room(self._keeping.peak_bytes(plan) + staging.bytes, host_headroom(), _HOST_HINT)]

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`Target`."""

        def allocate(arena: int) -> memoryview:
            return map_anonymous(plan.arena_bytes[arena])

        return HostPlacer(plan, allocate, slot_bytes=staging.slot_bytes, cast=self._keeping.cast)


class InPlaceTarget(HostTarget):
    """Fresh host memory that direct reads go straight into, for a caller who gets all tensors at once."""

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`Target`."""
        return lay_out(infos, _IN_PLACE, first_arena=first_arena)

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`Target`."""
        return InPlacePlacer(plan, slot_bytes=staging.slot_bytes)


class MappedTarget:
    """Mappings of the shards themselves: their pages are the page cache's until somebody writes to them."""

    reads_ahead = False
    slots_per_lane = 1
    extent_bytes = _MAPPED_EXTENT_BYTES
    window_bytes: int | None = None
    digests: DeviceDigests | None = None

    def __init__(self, checkpoint: Checkpoint, keeping: Keeping, *, copies_all: bool = False) -> None:
        self._checkpoint = checkpoint
        self._keeping = keeping
        self._copies_all = copies_all

    def for_readers(self, names: Collection[str]) -> Target:
        """See :class:`Target`."""
        return self

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`Target`."""
        return lay_out_mapped(infos, file_bytes, first_arena=first_arena)

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """See :class:`Target`; only what is copied takes memory that the kernel cannot take back."""
        copied_bytes = self._keeping.copied_bytes(plan, copies_all=self._copies_all)
        needed_bytes = self._keeping.cast_bytes(plan) + copied_bytes
        return [Room(needed_bytes, host_headroom(), _HOST_HINT)] if needed_bytes else []

    def open_placer(self, plan: Plan, staging: Staging) -> Placer:
        """See :class:`Target`."""
        shard_of = {segments[0].arena: shard for shard, segments in enumerate(plan.segments) if segments}

        def file_of(arena: int) -> Shard:
            return self._checkpoint.shards[shard_of[arena]]

        return MappedPlacer(plan, file_of, cast=self._keeping.cast, copies_all=self._copies_all)


class CudaTarget:
    """The memory of one CUDA device."""

    slots_per_lane = SLOTS_PER_LANE
    extent_bytes = _CUDA_EXTENT_BYTES

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
        """See :class:`Target`; not without a ring, from which its lanes get their many slots."""
        return self.ring is not None

    def for_readers(self, names: Collection[str]) -> Target:
        """See :class:`Target`."""
        return self

    def lay_out(self, infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        """See :class:`Target`."""
        return lay_out(infos, _ON_DEVICE, first_arena=first_arena)

    def find_rooms(self, plan: Plan, staging: Staging) -> Sequence[Room]:
        """See :class:`Target`; a lane's slots on the host have one more of their size on the device."""
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
        """See :class:`Target`."""

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


def choose_mapped(device: torch.device, keeping: Keeping, checkpoint: Checkpoint, *, copies_all: bool) -> MappedTarget:
    """The page cache, as memory of ``device``.

    Raises:
        UnsupportedError: it is no device's.
    """
    if device.type != "cpu":
        raise UnsupportedError('reader="mmap" serves device="cpu" only', 'Use reader="auto"')
    return MappedTarget(checkpoint, keeping, copies_all=copies_all)


def choose_target(device: torch.device, keeping: Keeping, settings: Settings, fetched: Fetched) -> Target:
    """The target that is ``device``'s fresh memory, or for ``reader="mmap"`` the page cache.

    Raises:
        UnsupportedError: ``mmap`` for a device.
    """
    if settings.reader == "mmap":
        return choose_mapped(device, keeping, fetched.checkpoint, copies_all=keeping.is_cut)
    if device.type == "cuda":
        return CudaTarget(device, keeping, settings.device_bytes, choose_digests(device, fetched.evidence))
    return HostTarget(keeping)


@contextmanager
def pinning_early(device: torch.device, staging_bytes: int) -> Iterator[PinnedRing | None]:
    """Pin the slots of a load to ``device`` from now on, while it is being planned; an error unpins them."""
    if device.type != "cuda" or staging_bytes < SLOTS_PER_LANE * BLOCK_BYTES:
        yield None
        return
    # As if the files were in memory. Where they are not, disks may want fewer lanes, and with them larger slots.
    headroom = host_headroom()
    wish = Staging(memory_depth(), SLOTS_PER_LANE, _CUDA_EXTENT_BYTES)
    likely = divide_ahead(staging_bytes, headroom) or divide_staging(staging_bytes, headroom, wish)
    room_bytes = room_for_digests(likely.slot_bytes)
    ring = PinnedRing(device, likely.slot_bytes, room_bytes, likely.lanes * likely.slots_per_lane)
    try:
        wait_for_room = begin_descriptor_room()
        yield ring
        wait_for_room()
    except BaseException:
        ring.close()
        raise


def start_compiling(device: torch.device, evidence: Evidence) -> None:
    """Have the kernels compiled that a load to ``device`` will digest with, while its headers are being read."""
    choose_digests(device, evidence)


def choose_digests(device: torch.device, evidence: Evidence) -> DeviceDigests | None:
    """Those of ``device``, whose kernels are compiled from the first call on, if blocks are what is known."""
    return DeviceDigests(device) if evidence.has_blocks and device.type == "cuda" else None
