"""How host staging is divided: so many lanes, each with slots of so many bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import UsageError

if TYPE_CHECKING:
    from fastload._budget import Headroom

_AHEAD_LANES = 2
"""Streams: while one digests and scatters, the other has the link to the device."""
_AHEAD_SLOTS_PER_LANE = 2
"""Two or three of all are being read into, one or two are being copied from. All of it, 128 MiB, stays in the CPU's
cache: with 192 MiB a load came to 36 GB/s beside an H200 where it comes to 40."""
_AHEAD_SLOT_BYTES = (32 << 20, 16 << 20, 8 << 20)  # 32, 16, 8 MiB
"""The larger the less is to be done for each byte, by the one thread: beside an H200 it was what others waited for with
8 MiB. Each is read in pieces, by several threads at once."""


class Staging(NamedTuple):
    """The lanes of one load."""

    lanes: int
    slots_per_lane: int
    slot_bytes: int
    """Also the largest extent: one fills one slot."""

    landing_slots: int = 0
    """Slots that a lane has besides on the device, for what comes past the host."""
    is_ahead: bool = False
    """True: all lanes are one thread's, and others read for it."""

    @property
    def bytes(self) -> int:
        """All slots together."""
        return self.lanes * self.slots_per_lane * self.slot_bytes


def divide_staging(staging_bytes: int, headroom: Headroom, wish: Staging, *, least_lanes: int = 1) -> Staging:
    """``wish``, made to fit ``staging_bytes`` and an eighth of ``headroom``: first smaller slots, then fewer lanes.

    Raises:
        UsageError: not even ``least_lanes`` of single blocks fit the setting.
    """
    least_bytes = least_lanes * wish.slots_per_lane * BLOCK_BYTES
    if staging_bytes < least_bytes:
        beside = f", one lane for each of {least_lanes - 1} ranks that send to it" if least_lanes > 1 else ""
        hint = f"This device needs at least {least_bytes:,}{beside}"
        raise UsageError(f"staging_bytes is {staging_bytes:,}", hint)
    allowed_bytes = max(least_bytes, min(staging_bytes, headroom.available_bytes // 8))
    slot_bytes = wish.slot_bytes
    while slot_bytes > BLOCK_BYTES and wish._replace(slot_bytes=slot_bytes).bytes > allowed_bytes:
        slot_bytes //= 2
    lanes = min(wish.lanes, allowed_bytes // (wish.slots_per_lane * slot_bytes))
    return Staging(lanes, wish.slots_per_lane, slot_bytes)


def with_least_slots(staging: Staging) -> Staging:
    """``staging`` with slots of single blocks; as it is where one thread has others read: what they read is larger."""
    return staging if staging.is_ahead else staging._replace(slot_bytes=BLOCK_BYTES)


def divide_ahead(staging_bytes: int, headroom: Headroom) -> Staging | None:
    """The lanes of :mod:`~fastload._load.read.ahead`; None where there is too little memory for them."""
    allowed_bytes = min(staging_bytes, headroom.available_bytes // 8)
    wishes = (
        Staging(_AHEAD_LANES, _AHEAD_SLOTS_PER_LANE, slot_bytes, is_ahead=True) for slot_bytes in _AHEAD_SLOT_BYTES
    )
    return next((wish for wish in wishes if wish.bytes <= allowed_bytes), None)


def cut_window(staging_bytes: int, headroom: Headroom) -> int:
    """How far reading runs ahead of who takes tensors one by one: ``staging_bytes``, or a quarter of ``headroom``.

    It only makes things faster: what is waited for is read whatever the window. Next to it there must be room for the
    tensor that is being read, the one that the caller holds, and staging.
    """
    return min(staging_bytes, headroom.available_bytes // 4)
