"""What a load to a CUDA device begins before it is planned: kernels are compiled, and slots are pinned."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload._budget import host_headroom
from fastload._load.target.cuda_target import CUDA_EXTENT_BYTES
from fastload._load.target.staging import Staging, divide_ahead, divide_staging
from fastload._place.device_digests import DeviceDigests
from fastload._place.pinned_ring import PinnedRing
from fastload._place.slots import SLOTS_PER_LANE, room_for_digests
from fastload._read.background import begin_descriptor_room
from fastload._read.choose import memory_depth
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from fastload._fetch.evidence.evidence import Evidence


@contextmanager
def pinning_early(device: torch.device, staging_bytes: int) -> Iterator[PinnedRing | None]:
    """Pin the slots of a load to ``device`` from now on, while it is being planned; an error unpins them."""
    if device.type != "cuda" or staging_bytes < SLOTS_PER_LANE * BLOCK_BYTES:
        yield None
        return
    # As if the files were in memory. Where they are not, disks may want fewer lanes, and with them larger slots.
    headroom = host_headroom()
    wish = Staging(memory_depth(), SLOTS_PER_LANE, CUDA_EXTENT_BYTES)
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
