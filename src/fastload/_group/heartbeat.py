"""How a rank shows that it lives, and how it notices that another one does not."""

from __future__ import annotations

import time

from fastload.errors import GroupError

BEAT = b"."
BEAT_S = 1.0
SILENCE_S = 6.0
"""After so long without a heartbeat a rank has failed. Together with the rest below ten seconds."""
KILLED_HINT = "See its own log: it may have been killed, by the OOM killer for one. The group itself stays usable"
_SILENT_HINT = "It may be stopped, swapping, or its machine gone. The group itself stays usable"


class HeartbeatMonitor:
    """Since when another rank has been silent; time in which this process did not run itself does not count."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._heard_s = self._looked_s = time.monotonic()

    def hear(self) -> None:
        """It has said something."""
        self._heard_s = time.monotonic()

    def check(self) -> None:
        """To be called at least once a second.

        Raises:
            GroupError: it has been silent for too long.
        """
        now_s = time.monotonic()
        self._heard_s += max(0.0, now_s - self._looked_s - BEAT_S)
        self._looked_s = now_s
        if now_s - self._heard_s > SILENCE_S:
            raise GroupError(f"rank {self._rank} has given no sign of life for {SILENCE_S:g} s", _SILENT_HINT)
