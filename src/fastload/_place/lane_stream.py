"""What the device does for one lane, in order: copied in, digested, and scattered to the arenas.

See :mod:`fastload._place.cuda` for the streams that it is in order with.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import torch

from fastload._place.cuda_memory import allocate_on
from fastload._place.stream_queue import StreamEvent, StreamQueue
from fastload._place.stream_spans import StreamSpans
from fastload._plan.layout import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from fastload._place.cuda_memory import Arena, PinnedSlot, Place
    from fastload._place.placer import Arenas
    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan
    from fastload._trace import Trace

    Digesting = Callable[[int], "Digester | None"]
    """Gives a digester for buffers of so many bytes, under the current stream; None: not yet, or never."""

_UNSEEN = contextlib.nullcontext()


class Digester(Protocol):
    """See :class:`fastload._place.gpu_digest.BlockDigester`."""

    def digest_on(self, stream: torch.cuda.Stream, buffer: torch.Tensor, length: int) -> torch.Tensor:
        """The digests of the blocks in ``buffer``, in the order of ``stream``; until the next call."""


class LaneStream:
    """The stream of one lane, and the memory of the device through which its extents go."""

    _digester: Digester | None = None
    _spans: StreamSpans | None = None
    _waited_for: StreamEvent | None = None

    def __init__(
        self,
        plan: Plan,
        arenas: Arenas[Arena],
        device: torch.device,
        staging_bytes: int,
        digesting: Digesting | None,
    ) -> None:
        self._plan = plan
        self._arenas = arenas
        self.device = device
        self._digesting = digesting
        self.stream = torch.cuda.Stream(device)
        self._queue = StreamQueue(self.stream)
        self._staging = allocate_on(device, staging_bytes)
        self.stream.wait_stream(torch.cuda.current_stream(device))
        self._entered: dict[int, Place] = {}
        """Arenas that this stream has waited for."""

    @property
    def staging_bytes(self) -> int:
        """Of the device: the largest extent."""
        return self._staging.numel()

    def tell(self, trace: Trace, row: str) -> None:
        """Tell ``trace``, when the lane is closed, what its stream did from now on, in a ``row`` of its own."""
        self._spans = StreamSpans(trace, self.stream, f"{self.device}, {row}")

    def _span(self, name: str) -> AbstractContextManager[None]:
        return _UNSEEN if self._spans is None else self._spans.span(name)

    def forget_error(self) -> None:
        """Clear the thread's last CUDA error, which torch reports and clears after any copy on a device.

        The copy itself is carried out, so it must be in order with those to come.
        """
        with contextlib.suppress(RuntimeError), torch.cuda.stream(self.stream):
            self._staging[:1].copy_(self._staging[1:2])

    @property
    def takes_digests(self) -> bool:
        """True if digests are taken from now on, where that is asked for."""
        if self._digester is None and self._digesting is not None:
            with torch.cuda.stream(self.stream):
                self._digester = self._digesting(self._staging.numel())
        return self._digester is not None

    def send(self, slot: PinnedSlot, begin: int, extent: Extent, *, digests: bool) -> None:
        """Queue what lies in ``slot`` from ``begin`` on, the bytes of ``extent``, on its way."""
        with self._span("host to device"):
            of = slot.address + begin
            self._queue.copy_in(self._staging.data_ptr(), of, extent.length, is_pinned=slot.is_pinned)
        self.pass_on(self._staging, slot, extent, digests=digests)

    def pass_on(self, buffer: torch.Tensor, slot: PinnedSlot, extent: Extent, *, digests: bool) -> None:
        """Queue what follows once ``extent`` lies in ``buffer`` on the device; digests come to the room of ``slot``."""
        digester = self._digester if digests else None
        if digester is not None:
            with self._span("digest"):
                found = digester.digest_on(self.stream, buffer, extent.length)
                room = slot.address + slot.nbytes
                self._queue.copy_out(room, found.data_ptr(), found.nbytes, is_pinned=slot.is_pinned)
        slot.free.set_on(self.stream)
        with self._span("scatter"):
            self._scatter(buffer.data_ptr(), extent)

    def _scatter(self, at: int, extent: Extent) -> None:
        """Queue the pieces of ``extent``, which lies at address ``at`` on the device, on their way to their arenas."""
        for arena, offset, length in self._plan.cut(extent):
            if arena != NOWHERE:
                where = self._entered.get(arena) or self._enter(arena)
                if where.is_on_host:
                    self._queue.copy_out(where.address + offset, at, length, is_pinned=False)
                else:
                    self._queue.copy_within(where.address + offset, at, length)
            at += length

    def _enter(self, arena: int) -> Place:
        """Its memory, which the stream may write to from here on."""
        _, place, usable = self._arenas.get(arena)
        if usable is not self._waited_for:
            usable.hold_back(self.stream)
            self._waited_for = usable
        self._entered[arena] = place
        return place

    def finish(self) -> None:
        """Wait for the whole stream: after an error, copies may be queued that no event was recorded behind."""
        self.stream.synchronize()
        if self._spans is not None:
            self._spans.tell()

    def let_go(self) -> None:
        """Give the memory back."""
        self._staging = self._staging.new_empty(0)
        self._digester = None
