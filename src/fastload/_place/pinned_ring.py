"""Slots that are pinned while headers are still being read: page-locking takes about as long as they do.

A few threads make them; a lane takes what is ready, and pins for itself what it needs and is not. What nobody took is
unpinned when the ring is closed, or dropped.
"""

from __future__ import annotations

import logging
import os
import threading
import time
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


_log = logging.getLogger("fastload")
_JOIN_S = 0.8
"""Ctrl-C promises a second, and a driver may hang."""
_MAKERS = 4
"""The driver pins for one thread at a time; but most of the time goes into making the pages, and that they do at once:
beside an H200 32 MiB took 6 to 8 ms, 1.3 of which were the driver's where the pages were there."""


class PinnedRing:
    """Up to ``count`` slots of ``nbytes``, each with ``room_bytes`` behind; what takers pin themselves counts."""

    def __init__(self, device: torch.device, nbytes: int, room_bytes: int, count: int) -> None:
        self._sizes = (nbytes, room_bytes)
        self._stock = _Stock(device, count)
        making = partial(_make, device, self._sizes, self._stock)
        threads: list[threading.Thread] = []
        self._end = weakref.finalize(self, _end, self._stock, threads, os.getpid())
        for number in range(min(count, _MAKERS)):
            # Noted before it is started, at which Ctrl-C may come.
            threads.append(threading.Thread(target=making, name=f"fastload-pinning-{number}", daemon=True))
            try:
                start_thread(threads[-1])
            except (MemoryBudgetError, UnsupportedError):
                if number == 0:
                    raise
                break  # fewer do it as well

    def take(self, nbytes: int, room_bytes: int) -> PinnedSlot | None:
        """One that is ready, if it has these sizes; if they have others, all are unpinned, and no more are made."""
        if (nbytes, room_bytes) == self._sizes:
            return self._stock.take()
        self._stock.end()
        return None

    def take_or_claim(self, nbytes: int, room_bytes: int) -> PinnedSlot | None:
        """One that is ready, or will be; None: whoever asks makes one, which nobody else makes then."""
        return self._stock.take_or_claim() if (nbytes, room_bytes) == self._sizes else self.take(nbytes, room_bytes)

    def close(self) -> None:
        """Make no more, and unpin what nobody took."""
        self._end()


class _Stock:
    """What the makers share with the takers. It must not hold the ring, whose being dropped shall end it."""

    def __init__(self, device: torch.device, count: int) -> None:
        self._device = device
        self._changed = threading.Condition()
        self._ready: deque[PinnedSlot] = deque()
        self._left = count
        self._making = 0
        self._is_over = False

    def claim(self) -> bool:
        """True if one more may be made, by the maker that asks."""
        with self._changed:
            if not self._left:
                return False
            self._left -= 1
            self._making += 1
            return True

    def add(self, slot: PinnedSlot | None) -> None:
        """What a maker has claimed is made; None: it failed. One that is not pinned is let go, and the last one."""
        with self._changed:
            self._making -= 1
            if slot is not None and slot.is_pinned and not self._is_over:
                self._ready.append(slot)
                slot = None
            elif slot is not None and not slot.is_pinned:
                self._left = 0
            self._changed.notify_all()
        if slot is not None:
            slot.unpin()

    def take(self) -> PinnedSlot | None:
        """One that is ready, if there is any."""
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    def take_or_claim(self) -> PinnedSlot | None:
        """One that is ready, or will be; None: whoever asks makes one.

        Where all that may be are being made, one more would be more than was weighed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._left or not self._making)
            if not self._ready and self._left:
                self._left -= 1
            return self.take()

    def end(self) -> None:
        """Let no more be made, and unpin those that are ready, and those that are just being made."""
        with self._changed:
            self._is_over = True
            self._left = 0
            unwanted, self._ready = self._ready, deque()
        if unwanted:
            # On the device, else the caller's thread would make a context on its current one. That is an error where
            # the device has failed, which whoever loads is told; what is pinned for it goes with the process.
            with suppress(RuntimeError), torch.cuda.device(self._device):
                for slot in unwanted:
                    slot.unpin()


def _make(device: torch.device, sizes: tuple[int, int], stock: _Stock) -> None:
    try:
        torch.cuda.set_device(device)  # this is also what makes the context, the first time in a process
        go_near(device)
        while stock.claim():
            slot = None
            try:
                slot = PinnedSlot(*sizes)
            finally:
                stock.add(slot)
    except Exception as exc:  # noqa: BLE001 - the lanes, which need it, meet it as well, and their load fails by it
        _log.debug("no slots are pinned ahead for %s: %s", device, exc)


def _end(stock: _Stock, threads: Sequence[threading.Thread], process: int) -> None:
    """Nobody needs to wait for the makers, who unpin what they are making; but as a rule they end at once."""
    if os.getpid() != process:
        return  # a forked child has neither this memory nor the device; and a lock may be held by who is not there
    stock.end()
    until_s = time.monotonic() + _JOIN_S
    for thread in threads:
        # The collector may find the ring on one of them.
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(max(0.0, until_s - time.monotonic()))
