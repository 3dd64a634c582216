"""The seam between the pipeline and memory."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch

    from fastload._plan.extent import Extent
    from fastload._plan.layout import Placement
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._trace import Trace

Memory = TypeVar("Memory")


class Lane(Protocol):
    """One worker thread's way into memory; used by that thread alone."""

    @property
    def has_room(self) -> bool:
        """True if :meth:`buffers_for` would not wait."""

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        """Memory for the bytes of ``extent``, in file order; waits until there is some.

        With an ``alignment_bytes`` above 1 it is one buffer, aligned so, whose length is rounded up to it.
        """

    def device_memory_for(self, extent: Extent, files: CuFiles) -> DeviceMemory:
        """Memory of the device for the bytes of ``extent``, registered with ``files``; waits until there is some.

        Raises:
            UnsupportedError: there is none, or storage cannot write to it.
        """

    @property
    def takes_digests(self) -> bool:
        """True if from now on it can check blocks itself, where they arrive: they need not be proven before."""

    def place(self, landed: Callable[[], None], check: BlockCheck | None = None) -> None:
        """What :meth:`buffers_for` or :meth:`device_memory_for` gave is filled: bring it to its places.

        A lane may have room for several at once: then it is the one that was given first.

        ``landed`` is called when it is there, in the order of the device, and has passed ``check``: at once, by a later
        call, or by :meth:`settle`.
        """

    def settle(self) -> None:
        """Wait for all checks that are under way.

        Raises:
            IntegrityError: a block is not what it should be, and nobody has a better one.
        """

    def close(self) -> None:
        """Wait for what is under way and give the lane's memory back."""


class Placer(Protocol):
    """Owns the arenas of a plan."""

    @property
    def staging_bytes(self) -> int:
        """Host memory that all lanes together use on the way."""

    def open_lane(self, trace: Trace | None = None) -> Lane:
        """A lane for the calling thread; a ``trace`` is told what the device does for it."""

    def catch_up(self) -> None:
        """Order the caller's stream behind all that was placed so far."""

    def make_ahead(self) -> Iterator[None]:
        """Make all memory of the plan, for a caller who keeps it all, some with each step, in the order of the files.

        Lanes that wait for memory hold up others, and once one waits for its turn others may get theirs many times.
        """

    def make_pages(self) -> Iterator[None]:
        """Make the pages of all host memory of the plan, some with each step, in the order of the files.

        For a thread beside those that read past the page cache: to make a page takes as long as to copy one.
        """

    def take(self, number: int) -> torch.Tensor:
        """The tensor of placement ``number``, all of whose bytes have been placed."""

    def finish(self) -> None:
        """Wait until all that was placed has landed."""


class Arenas(Generic[Memory]):
    """The memory of a plan: made when its first byte arrives, or before; let go when its last tensor was taken."""

    def __init__(self, placements: Sequence[Placement], allocate: Callable[[int], Memory]) -> None:
        self._allocate = allocate
        self._lock = threading.Lock()
        self._made: dict[int, Memory] = {}
        self._untaken = Counter(placement.arena for placement in placements)

    def get(self, arena: int) -> Memory:
        """Its memory; the first call allocates."""
        made = self._made.get(arena)  # without the lock, which somebody may hold who allocates
        if made is not None:
            return made
        with self._lock:
            return self._get(arena)

    def find(self, arena: int) -> Memory | None:
        """Its memory, made if nobody did yet; None where the last tensor of it was taken."""
        with self._lock:
            return self._get(arena) if self._untaken[arena] else None

    def make(self, arenas: Iterable[int], allocate: Callable[[Sequence[int]], Iterable[Memory]]) -> None:
        """Make those of ``arenas`` that nobody made yet, by ``allocate``, and all at once."""
        with self._lock:
            missing = [arena for arena in arenas if arena not in self._made and self._untaken[arena]]
            self._made.update(zip(missing, allocate(missing), strict=True))

    def take(self, arena: int) -> Memory:
        """Its memory, for one of its tensors; after the last one, the tensors are the memory's only owners."""
        with self._lock:
            memory = self._get(arena)
            self._untaken[arena] -= 1
            if not self._untaken[arena]:
                del self._made[arena]
            return memory

    def _get(self, arena: int) -> Memory:
        if arena not in self._made:
            self._made[arena] = self._allocate(arena)
        return self._made[arena]
