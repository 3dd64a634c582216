"""Memory of a CUDA device, and host memory that it copies from at full speed."""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from fastload._address_space import map_anonymous
from fastload._budget import Headroom, host_headroom
from fastload._place.memory import map_staging
from fastload._place.stream_queue import StreamEvent
from fastload.errors import MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Iterator

_REGISTER_PORTABLE = 1


def device_headroom(device: torch.device, device_bytes: int | None) -> Headroom:
    """What the device has left, torch's own unused reserve counted in; ``device_bytes`` may bound it further."""
    reserve = _find_reserve(device)
    left = host_headroom() if shares_memory(device) else _free_memory(device)
    left = replace(left, available_bytes=left.available_bytes + reserve, own_bytes=reserve)
    if device_bytes is not None and device_bytes < left.available_bytes:
        return Headroom("the setting device_bytes", device_bytes)
    return left


def _find_reserve(device: torch.device) -> int:
    """What torch holds and nobody uses; none where another allocator is plugged into it, such as RMM's."""
    try:
        return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    except RuntimeError:  # "does not yet support getDeviceStats"; an error of the device comes with the next question
        return 0


def _free_memory(device: torch.device) -> Headroom:
    free, _ = torch.cuda.mem_get_info(device)
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", "")  # torch before 2.6 has none
    return Headroom(f"the free memory of {device}", free, str(uuid))


def shares_memory(device: torch.device) -> bool:
    """True for a device whose memory is the host's, as a DGX Spark's or a Jetson's.

    What it has left is what the host has: it does not say itself that the page cache can be given up, and it knows of
    no cgroup. And what is staged for it on the host is taken from the same memory.
    """
    return bool(torch.cuda.get_device_properties(device).is_integrated)


def allocate_on(device: torch.device, nbytes: int) -> torch.Tensor:
    """Uninitialised bytes on ``device``.

    Raises:
        MemoryBudgetError: somebody took the memory since the budget was checked.
    """
    with room_on(device, nbytes):
        return torch.empty(nbytes, dtype=torch.uint8, device=device)


@contextmanager
def room_on(device: torch.device, nbytes: int) -> Iterator[None]:
    """Raise ``MemoryBudgetError`` where torch finds no room on ``device`` for the ``nbytes`` that are asked of it."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as exc:
        left = device_headroom(device, None)
        hint = (
            "Another process took memory while this load ran, or what is left is in pieces: free some, and load again"
        )
        raise MemoryBudgetError(nbytes, left.available_bytes, left.limit, hint) from exc


def host_bytes(nbytes: int) -> torch.Tensor:
    """Uninitialised bytes of host memory, which a device copies into."""
    return torch.frombuffer(map_anonymous(nbytes), dtype=torch.uint8)


class Place(NamedTuple):
    """Where bytes go; it keeps no memory alive."""

    address: int
    is_on_host: bool
    """True for a tensor too large for the device to hold beside what it is for."""


class Arena(NamedTuple):
    """Memory of a plan."""

    memory: torch.Tensor
    place: Place
    usable: StreamEvent
    """After it, what the caller's stream did with that memory before is over."""


class PinnedSlot:
    """A pinned host buffer, and the event after which what was queued with it is over.

    ``room_bytes`` more lie behind the buffer, for what the device finds out about it.
    """

    def __init__(self, nbytes: int, room_bytes: int) -> None:
        whole = map_staging(nbytes + room_bytes)
        self.nbytes = nbytes
        self.memory, self.room = whole[:nbytes], whole[nbytes : nbytes + room_bytes]
        self._pinned = torch.frombuffer(whole, dtype=torch.uint8)
        self.address = self._pinned.data_ptr()
        self.free = StreamEvent()
        self.is_pinned = self._pin()

    def _pin(self) -> bool:
        """Pin in place: faster than cudaHostAlloc, and in huge pages. Refused: copies from it are slower, not wrong.

        The driver has pages made as well, but for one thread at a time, and with a lock that keeps any other thread
        from being started meanwhile, as MADV_POPULATE_WRITE does. To touch a page asks for none since Linux 6.4.
        """
        self._pinned[:: mmap.PAGESIZE].zero_()
        runtime = torch.cuda.cudart()
        code = runtime.cudaHostRegister(self.address, self._pinned.numel(), _REGISTER_PORTABLE)
        return int(code) == 0

    def unpin(self) -> None:
        """No copy out of it may be under way."""
        if self.is_pinned:
            torch.cuda.cudart().cudaHostUnregister(self.address)
