"""How many direct reads at once does this disk want? Measured during the load, on its own reads.

One disk is fastest with four reads in flight, a stripe of NVMe disks with sixteen; more than it wants only add noise
and latency. A gate lets so many through, for a moment each of the depths that are tried, and keeps to the smallest one
that is as good as the best. Where reads were not what the load waited for, nothing is learnt.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fastload._read.around import ReaderAround

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._read.reader import Reader

_TRIAL_S = 0.2
_SETTLE_S = 0.05
"""What was begun at the last depth ends meanwhile."""
_AS_GOOD = 0.95
_SATURATED = 0.8
"""So full must the gate have been, on average, for a trial to say something."""


class DepthGate:
    """Lets so many reads of one file system be under way at once."""

    def __init__(self, depths: Sequence[int], keep: Callable[[int], object], now: Callable[[], float]) -> None:
        """``depths``, from the smallest on, are tried; a single one is kept to. ``keep`` is told which was found."""
        self._depths = depths
        self._keep = keep
        self._now = now
        self._free = threading.Condition()
        self._rates: dict[int, float] = {}
        self._under_way = 0
        self._trial = 0
        self._begin_s = self._last_s = now()
        self._bytes = 0
        self._read_s = 0.0
        self._is_full = False

    @property
    def depth(self) -> int:
        """How many may be under way now."""
        return self._depths[self._trial]

    @property
    def deepest(self) -> int:
        """The largest that is tried."""
        return max(self._depths)

    def enter(self) -> None:
        """Wait for a place."""
        with self._free:
            self._free.wait_for(lambda: self._under_way < self.depth)
            self._add_up()
            self._under_way += 1

    def leave(self, nbytes: int) -> None:
        """A read of ``nbytes`` is over."""
        with self._free:
            self._add_up()
            self._under_way -= 1
            if self._last_s - self._begin_s >= 0:
                self._bytes += nbytes
            if len(self._depths) > 1 and self._last_s - self._begin_s >= _TRIAL_S:
                self._end_trial()
            self._free.notify_all()

    def _add_up(self) -> None:
        now = self._now()
        self._read_s += self._under_way * max(0.0, now - max(self._last_s, self._begin_s))
        self._last_s = now

    def _end_trial(self) -> None:
        elapsed_s = self._last_s - self._begin_s
        self._rates[self.depth] = self._bytes / elapsed_s
        self._is_full = self._read_s / elapsed_s >= _SATURATED * self.depth
        if not self._rates.keys() - {self.depth} and not self._is_full:
            self._settle_on(max(self._depths))  # the load waits for something else
        elif self._trial + 1 == len(self._depths):
            self._decide()
        else:
            self._trial += 1
            self._begin_s = self._last_s + _SETTLE_S
            self._bytes, self._read_s = 0, 0.0

    def _decide(self) -> None:
        """The deepest may be better than it could show, where it was not full: then it serves, and is not kept."""
        best = max(self._rates.values())
        found = min(depth for depth, rate in self._rates.items() if rate >= _AS_GOOD * best)
        is_known = found != self.depth or self._is_full
        self._settle_on(found)
        if is_known:
            self._keep(found)

    def _settle_on(self, depth: int) -> None:
        self._depths, self._trial = (depth,), 0


class GatedReader(ReaderAround):
    """A reader whose reads pass a gate: a wrapper with the reader's own protocol."""

    def __init__(self, reader: Reader, gate: DepthGate) -> None:
        super().__init__(reader)
        self._gate = gate

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """See :class:`~fastload._read.reader.Reader`."""
        nbytes = 0
        self._gate.enter()
        try:
            self._reader.read_into(offset, buffers)
            nbytes = sum(map(len, buffers))
        finally:
            self._gate.leave(nbytes)


def open_gate(depths: Sequence[int], keep: Callable[[int], object]) -> DepthGate:
    """A gate that goes by the clock."""
    return DepthGate(depths, keep, time.monotonic)
