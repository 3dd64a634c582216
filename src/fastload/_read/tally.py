"""What proving did, and what it cost to read: threads count here."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from fastload._read.ledger import Ledger
from fastload._tier import PATH

if TYPE_CHECKING:
    from fastload._read.ledger import Purpose
    from fastload._tier import Tier


class ProofTally:
    """Blocks of one copy that were proven; what is read of it, or once more, or mended, goes to the load's ledger."""

    def __init__(self, ledger: Ledger | None = None, tier: Tier = PATH) -> None:
        """``ledger``: of the load, of whose tries this is one; ``tier``: where the copy is."""
        self._lock = threading.Lock()
        self.all_tries = ledger or Ledger()
        self.ledger = self.all_tries.part()
        """Of this one."""
        self.tier = tier
        self.verified = 0
        self.on_device = 0
        """Of the verified ones, those that were digested on the device."""
        self.ahead_hash_s = 0.0
        """Spent on digests of whole files before there was a plan, summed over threads."""

    def note(self, purpose: Purpose, nbytes: int) -> None:
        """So many bytes of the copy were read."""
        self.ledger.note(self.tier, purpose, nbytes)

    def count(self, *, verified: int = 0, on_device: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.verified += verified
            self.on_device += on_device
