"""How long a rank waits for the others to come, and why it may have to stop waiting.

One thread waits, and looks here several times a second; the one that has called may change its mind meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload.errors import GroupError


class RendezvousTimeout:
    """For one rendezvous."""

    def __init__(self, seconds: float) -> None:
        self._until_s = time.monotonic() + seconds
        self.failure: GroupError | None = None
        """Why this rank itself cannot load."""
        self.is_told = False
        """True once another rank knows that by the store alone."""

    @property
    def left_s(self) -> float:
        """Below 0 where it is over."""
        return self._until_s - time.monotonic()

    def shorten(self, seconds: float) -> None:
        """From now on so long at most."""
        self._until_s = min(self._until_s, time.monotonic() + seconds)

    def give_up(self, failure: GroupError) -> None:
        """Wait only for those who must be told why."""
        self.failure = self.failure or failure

    def check(self) -> None:
        """Raise the ``failure``, if there is one."""
        if self.failure is not None:
            raise self.failure
