"""Where the lanes of one load get their pinned slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._place.cuda_memory import PinnedSlot
from fastload._place.gpu_digest import WORDS
from fastload._verify.digest import count_blocks

if TYPE_CHECKING:
    from fastload._place.pinned_ring import PinnedRing

SLOTS_PER_LANE = 2
"""One is being filled from storage while the other is being copied from."""
DIGEST_BYTES = 4 * WORDS


def room_for_digests(slot_bytes: int) -> int:
    """Bytes behind a slot into which the digests of what it held come back."""
    return count_blocks(slot_bytes) * DIGEST_BYTES


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots of one size."""

    nbytes: int
    per_lane: int = SLOTS_PER_LANE
    """How many a lane may have in the end."""
    at_first: int = SLOTS_PER_LANE
    """How many it begins with."""
    ring: PinnedRing | None = None
    """Where some may be ready."""

    def make(self) -> PinnedSlot:
        """One that is ready, or a new one."""
        room_bytes = room_for_digests(self.nbytes)
        ready = None if self.ring is None else self.ring.take_or_claim(self.nbytes, room_bytes)
        return ready or PinnedSlot(self.nbytes, room_bytes)

    def take_ready(self) -> PinnedSlot | None:
        """One that is ready, if there is any."""
        return None if self.ring is None else self.ring.take(self.nbytes, room_for_digests(self.nbytes))
