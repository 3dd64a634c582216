"""A snapshot that is being read: whoever wants to evict it can see that."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from fastload._read.file import open_regular
from fastload._store.keep.usage import touch_used
from fastload._store.lease.lock import hold_shared
from fastload._store.stored import CachedSnapshot, PlainFolder
from fastload._tier import LOCAL
from fastload.errors import FormatError, StoreError

if TYPE_CHECKING:
    from fastload._store.stored import Stored


_ATTEMPTS = 10
_PAUSE_S = 0.01


class Reading:
    """Holds the snapshot's manifest with other readers until it is closed; a read-only descriptor suffices.

    Where there is no manifest, or no lock to be had, nothing is held: the bytes that are open stay whole in any case,
    and an eviction that cannot see its readers leaves a snapshot alone.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._descriptor = -1
        if isinstance(stored, PlainFolder):
            return
        try:
            self._descriptor = open_regular(stored.layout.manifest(stored.commit))
        except (FormatError, StoreError):
            return
        # Whoever looks whether somebody reads holds the manifest alone for a moment.
        for _ in range(_ATTEMPTS):
            if hold_shared(self._descriptor):
                break
            time.sleep(_PAUSE_S)
        self._touch()

    def _touch(self) -> None:
        """Used now: said at the begin and, since a load may be long, at the end."""
        stored = self._stored
        if isinstance(stored, CachedSnapshot) and stored.tier == LOCAL:
            touch_used(stored.layout, stored.commit)

    def close(self) -> None:
        """Let go."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._touch()
            os.close(descriptor)
