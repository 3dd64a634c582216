"""A snapshot that is being read: whoever wants to evict it can see that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastload._store.lock import hold_shared
from fastload._store.usage import touch_used

if TYPE_CHECKING:
    from fastload._store.root import Stored


class Reading:
    """Holds the snapshot's manifest with other readers until it is closed; a read-only descriptor suffices.

    Where there is no manifest, or no lock to be had, nothing is held: the bytes that are open stay whole in any case,
    and an eviction that cannot see its readers leaves a snapshot alone.
    """

    def __init__(self, stored: Stored) -> None:
        self._descriptor = -1
        if stored.layout is None or stored.commit is None:
            return
        try:
            self._descriptor = os.open(stored.layout.manifest(stored.commit), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        hold_shared(self._descriptor)
        if stored.tier == "local":
            touch_used(stored.layout, stored.commit)

    def close(self) -> None:
        """Let go."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
