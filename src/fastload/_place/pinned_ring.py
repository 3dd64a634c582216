"""Slots that are pinned while headers are still being read: page-locking takes about as long as they do.

A few threads make them; a lane takes what is ready, and pins for itself what it needs and is not. What nobody took is
unpinned when the ring is closed, or dropped.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import torch

from fastload._place.cuda_memory import PinnedSlot
from fastload._place.numa import go_near
from fastload._thread import start_thread
from fastload.errors import MemoryBudgetError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence


_MAKERS = 4
"""The driver pins for one thread at a time; but most of the time goes into making the pages, and that they do at once:
beside an H200 32 MiB took 6 to 8 ms, 1.3 of which were the driver's where the pages were there."""


class PinnedRing:
    """Up to ``count`` slots of ``nbytes``, each with ``room_bytes`` behind; what takers pin themselves counts."""

    def __init__(self, device: torch.device, nbytes: int, room_bytes: int, count: int) -> None:
        self._sizes = (nbytes, room_bytes)
        self._stock = _Stock(count)
        making = partial(_make, device, self._sizes, self._stock)
        threads: list[threading.Thread] = []
        self._end = weakref.finalize(self, _end, self._stock, threads)
        for number in range(min(count, _MAKERS)):
            thread = threading.Thread(target=making, name=f"fastload-pinning-{number}", daemon=True)
            try:
                start_thread(thread)
            except (MemoryBudgetError, UnsupportedError):
                if not threads:
                    raise
                break  # fewer do it as well
            threads.append(thread)

    def take(self, nbytes: int, room_bytes: int) -> PinnedSlot | None:
        """One that is ready, if it has these sizes; if they have others, all are unpinned, and no more are made."""
        if (nbytes, room_bytes) != self._sizes:
            self._stock.stop()
            self._stock.unpin()
            return None
        try:
            return self._stock.ready.popleft()
        except IndexError:
            return None

    def take_or_claim(self, nbytes: int, room_bytes: int) -> PinnedSlot | None:
        """One that is ready; None: whoever asks makes one, which nobody else makes then."""
        slot = self.take(nbytes, room_bytes)
        if slot is None:
            self._stock.claim()
        return slot

    def close(self) -> None:
        """Make no more, and unpin what nobody took."""
        self._end()


class _Stock:
    """What the maker shares with the takers. It must not hold the ring, whose being dropped shall end it."""

    def __init__(self, count: int) -> None:
        self.ready: deque[PinnedSlot] = deque()
        self._left = count
        self._lock = threading.Lock()

    def claim(self) -> bool:
        """True if one more may be made, by whoever asks."""
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def stop(self) -> None:
        """Let no more be made."""
        with self._lock:
            self._left = 0

    def unpin(self) -> None:
        """Those that are ready; several may do so at once."""
        with suppress(IndexError):
            while True:
                self.ready.popleft().unpin()


def _make(device: torch.device, sizes: tuple[int, int], stock: _Stock) -> None:
    torch.cuda.set_device(device)  # this is also what makes the context, the first time in a process
    go_near(device)
    while stock.claim():
        slot = PinnedSlot(*sizes)
        if not slot.is_pinned:
            stock.stop()  # the lanes find that out for themselves, and halve; this thread's last error ends with it
        stock.ready.append(slot)


def _end(stock: _Stock, threads: Sequence[threading.Thread]) -> None:
    stock.stop()
    for thread in threads:
        thread.join()
    stock.unpin()
