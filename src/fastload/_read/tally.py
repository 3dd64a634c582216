"""What proving did, and what it cost to read: threads count here."""

from __future__ import annotations

import threading


class ProofTally:
    """Blocks that were proven, read once more, and mended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.verified = 0
        self.on_device = 0
        """Of the verified ones, those that were digested on the device."""
        self.reread = 0
        self.repaired = 0
        self.ahead_bytes = 0
        """Read of shards before there was a plan: for their headers, and to prove whole files first."""

        self.ahead_hash_s = 0.0
        """Spent on digests of whole files then, summed over threads."""

        self.mending_bytes = 0
        """Read of its own tier to mend it: once more past the page cache, and of stored files that were replaced."""

    def count_ahead(self, nbytes: int, hash_s: float = 0.0) -> None:
        """Add to ``ahead_bytes``, and to ``ahead_hash_s``."""
        with self._lock:
            self.ahead_bytes += nbytes
            self.ahead_hash_s += hash_s

    def count_mending(self, nbytes: int) -> None:
        """Add to ``mending_bytes``."""
        with self._lock:
            self.mending_bytes += nbytes

    def count(self, *, verified: int = 0, on_device: int = 0, reread: int = 0, repaired: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.verified += verified
            self.on_device += on_device
            self.reread += reread
            self.repaired += repaired
