"""The gate that finds how many reads at once a disk wants, on disks that are a formula."""

from __future__ import annotations

import contextlib
import heapq
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fastload._read.depth import DepthGate, GatedReader, open_gate
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MIB = 1 << 20
TRIED = (4, 8, 16)


class Disk:
    """Serves reads of 1 MiB on a clock of its own; with ``n`` under way, all together at ``rate(n)`` bytes a second."""

    def __init__(self, rate: Callable[[int], float], lanes: int = 16) -> None:
        self.now = 0.0
        self._rate = rate
        self._lanes = lanes
        self.kept: list[int] = []
        self.gate = DepthGate(TRIED, self.kept.append, lambda: self.now)
        self.deepest = 0

    def run(self, seconds: float, idle_s: float = 0.0) -> None:
        """All lanes read one after another; each does something else for ``idle_s`` between two."""
        under_way: list[float] = []
        ready = [self.now] * self._lanes
        end_s = self.now + seconds
        while self.now < end_s:
            while ready and ready[0] <= self.now and len(under_way) < self.gate.depth:
                heapq.heappop(ready)
                self.gate.enter()
                heapq.heappush(under_way, self.now + (len(under_way) + 1) * MIB / self._rate(len(under_way) + 1))
                self.deepest = max(self.deepest, len(under_way))
            if not under_way:
                self.now = ready[0]
                continue
            self.now = max(self.now, heapq.heappop(under_way))
            heapq.heappush(ready, self.now + idle_s)
            self.gate.leave(MIB)


@pytest.mark.parametrize(
    ("rate", "depth"),
    [
        (lambda n: 3e9 * min(1.0, n / 4), 4),
        (lambda n: 3e9 * min(1.0, n / 8), 8),
        (lambda n: 12e9 * min(1.0, n / 16), 16),
        (lambda n: 1e9 / n**0.3, 4),
    ],
    ids=["saturated by 4", "saturated by 8", "a stripe", "hurt by depth"],
)
def test_the_smallest_depth_that_is_as_good_as_the_best(rate: Callable[[int], float], depth: int) -> None:
    disk = Disk(rate)
    disk.run(2.0)
    assert disk.kept == [depth]
    assert disk.gate.depth == depth
    assert disk.deepest <= 16


def test_a_load_that_waits_for_something_else_learns_nothing() -> None:
    disk = Disk(lambda n: 3e9 * min(1.0, n / 4))
    disk.run(2.0, idle_s=0.1)
    assert disk.kept == []
    assert disk.gate.depth == 16


def test_a_depth_that_could_not_be_reached_is_not_kept() -> None:
    """Ten workers never have sixteen reads under way: more might be better still."""
    disk = Disk(lambda n: 12e9 * min(1.0, n / 16), lanes=10)
    disk.run(2.0)
    assert disk.kept == []
    assert disk.gate.depth == 16


def test_a_short_load_learns_nothing() -> None:
    disk = Disk(lambda _: 3e9)
    disk.run(0.3)
    assert disk.kept == []


class Slow:
    """A reader that counts who reads at once, and fails at odd offsets; a read lasts until there are two of them."""

    name = "direct"
    alignment_bytes = 4096

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._together = threading.Barrier(2)
        self.under_way = 0
        self.most = 0

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        self._count(1)
        self._together.wait(20)
        time.sleep(0.02)  # a chance for a third one
        self._count(-1)
        if offset % 2:
            raise StoreError("/m", "failed")

    def _count(self, more: int) -> None:
        with self._lock:
            self.under_way += more
            self.most = max(self.most, self.under_way)

    def check_path(self) -> None:
        """It is there."""

    def close(self) -> None:
        """It is closed."""


def test_a_depth_that_is_known_is_kept_to() -> None:
    slow = Slow()
    reader = GatedReader(slow, open_gate((2,), lambda _: pytest.fail("nothing is tried")))
    assert (reader.name, reader.alignment_bytes) == ("direct", 4096)

    def read(offset: int) -> None:
        with contextlib.suppress(StoreError):
            reader.read_into(offset, [memoryview(bytearray(8))])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (slow.most, slow.under_way) == (2, 0), "a read that failed has given its place back"
    reader.check_path()
    reader.close()
