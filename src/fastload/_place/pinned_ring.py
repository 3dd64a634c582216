"""Slots that are pinned while headers are still being read: page-locking takes about as long as they do.

A thread makes them one after another; a lane takes what is ready and pins for itself what is not. What nobody took is
unpinned when the ring is closed, or dropped.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque

import torch

from fastload._place.cuda_memory import PinnedSlot
from fastload._place.numa import go_near
from fastload._thread import start_thread


class PinnedRing:
    """Up to ``count`` slots of ``nbytes``, each with ``room_bytes`` behind."""

    def __init__(self, device: torch.device, nbytes: int, room_bytes: int, count: int) -> None:
        self._sizes = (nbytes, room_bytes)
        self._ready: deque[PinnedSlot] = deque()
        self._stopping = threading.Event()
        making = _Making(device, nbytes, room_bytes, count)
        thread = threading.Thread(
            target=making.run, args=(self._ready, self._stopping), name="fastload-pinning", daemon=True
        )
        start_thread(thread)
        self._end = weakref.finalize(self, _end, self._ready, self._stopping, thread)

    def take(self, nbytes: int, room_bytes: int) -> PinnedSlot | None:
        """One that is ready, if it has these sizes. The first taker ends the making: from then on lanes pin at once."""
        self._stopping.set()
        if (nbytes, room_bytes) != self._sizes:
            return None
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    def close(self) -> None:
        """Unpin what nobody took."""
        self._end()


class _Making:
    """What the thread does; it must not hold the ring, whose being dropped shall end it."""

    def __init__(self, device: torch.device, nbytes: int, room_bytes: int, count: int) -> None:
        self._device = device
        self._sizes = (nbytes, room_bytes)
        self._count = count

    def run(self, ready: deque[PinnedSlot], stopping: threading.Event) -> None:
        torch.cuda.set_device(self._device)  # this is also what makes the context, the first time in a process
        go_near(self._device)
        for _ in range(self._count):
            if stopping.is_set():
                return
            slot = PinnedSlot(*self._sizes)
            if not slot.is_pinned:
                return  # the lanes find that out for themselves, and halve; this thread's last error ends with it
            ready.append(slot)


def _end(ready: deque[PinnedSlot], stopping: threading.Event, thread: threading.Thread) -> None:
    stopping.set()
    thread.join()
    while ready:
        ready.popleft().unpin()
