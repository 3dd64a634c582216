"""Extents from rank to rank: what was read here is passed on, what others read is taken in.

Whoever has read an extent, and proven it, sends it before it is placed: once it is, a caller may change the tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._read.blocks import cut
from fastload.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from fastload._group.communicator import Communicator
    from fastload._group.link import Incoming
    from fastload._place.placer import Placer
    from fastload._plan.extent import Extent
    from fastload._plan.ranges import Ranges
    from fastload._plan.share import Share
    from fastload._read.reader import Reader

    Tee = Callable[[int, Reader], Reader]
    """Gives a reader of a shard whose bytes are kept elsewhere too."""


class LeftError(Exception):
    """A rank has left and sends nothing more: what it owes must be read here."""


class Exchange:
    """One rank's side."""

    def __init__(self, communicator: Communicator, share: Share, passing: Placer, *, can_read: bool, tee: Tee) -> None:
        """``passing``: room for what only others want. ``can_read``: this machine has the model."""
        self._communicator = communicator
        self._share = share
        self._tee = tee
        self._has_left = False
        self.passing = passing
        self.can_read = can_read
        self._outgoing = communicator.open_links(share.departures, share.relays)
        self._incoming: dict[int, Incoming] = {}
        self._trusted: set[int] = set()

    @property
    def sources(self) -> tuple[int, ...]:
        """The ranks that something comes from."""
        return tuple(self._share.arrivals)

    @property
    def trusted(self) -> list[int]:
        """The ranks that have read what came."""
        return sorted(self._trusted)

    @property
    def sent_bytes(self) -> int:
        """What was sent to all ranks."""
        return sum(outgoing.sent_bytes for outgoing in self._outgoing.values())

    @property
    def received_bytes(self) -> int:
        """What came from all ranks."""
        return sum(incoming.received_bytes for incoming in self._incoming.values())

    def sends(self, number: int) -> bool:
        """True if somebody waits for extent ``number``."""
        return number in self._share.parcels

    def pass_on(
        self, number: int, buffers: Sequence[memoryview], queueing: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """Send extent ``number``, whose bytes are in ``buffers``, to those who wait for it.

        ``queueing`` is entered while it waits for its turn: an extent before it has not been read.

        Raises:
            GroupError: one of them failed.
        """
        extent = self._share.extents[number]
        for parcel in self._share.parcels.get(number, ()):
            outgoing = self._outgoing[parcel.rank]
            with queueing():
                outgoing.wait_turn(number)
            try:
                outgoing.send(number, select(buffers, extent, parcel.ranges))
            except OSError as exc:
                outgoing.close()
                if not self._communicator.had_left(parcel.rank):
                    raise self._communicator.blame(parcel.rank) from exc
        self._communicator.check()

    def arrivals(self, source: int) -> Iterator[tuple[int, Reader]]:
        """Each extent that comes from ``source``, by number, and what fills memory with it.

        Raises:
            LeftError: ``source`` has left and sends nothing more.
            GroupError: it failed.
        """
        incoming = self._incoming[source] = self._communicator.open_incoming(source)
        for number, ranges in self._share.arrivals[source].items():
            try:
                found = incoming.wait_next()
            except (EOFError, OSError) as exc:
                raise self.explain_end(source) from exc
            if found != number:
                what = f"rank {source} sent extent {found} where {number} was due"
                raise GroupError(what, "The ranks run different versions of fastload, or this is a bug: report it")
            extent = self._share.extents[number]
            self._trusted.add(self._share.owners[number])
            arriving = _Arriving(self, source, incoming, extent, ranges)
            yield number, self._tee(extent.shard, arriving)

    def explain_end(self, source: int) -> LeftError | GroupError:
        """Why nothing comes from ``source`` any more."""
        is_over = self._has_left or self._communicator.had_left(source)
        return LeftError() if is_over else self._communicator.blame(source)

    def fail(self, error: BaseException) -> None:
        """See :meth:`~fastload._group.control_channel.ControlChannel.fail`."""
        self._communicator.fail(error)

    def leave(self) -> None:
        """Take nothing more, but go on sending; the others are to be told."""
        self._has_left = True

    def missing_after(self, source: int, last: int) -> list[int]:
        """What did not come any more from ``source``, which has left after extent ``last``."""
        return [number for number in self._share.arrivals[source] if number > last]


class _Arriving:
    """One extent that is coming in, as a reader; see :class:`~fastload._read.reader.Reader`."""

    name = "peer"
    alignment_bytes = 1

    def __init__(self, exchange: Exchange, source: int, incoming: Incoming, extent: Extent, ranges: Ranges) -> None:
        self._exchange = exchange
        self._source = source
        self._incoming = incoming
        self._extent = extent
        self._ranges = ranges

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        try:
            self._incoming.receive(select(buffers, self._extent, self._ranges))
        except (EOFError, OSError) as exc:
            raise self._exchange.explain_end(self._source) from exc

    def check_path(self) -> None:
        """There is none."""

    def close(self) -> None:
        """The connection is not this one's."""


def select(buffers: Sequence[memoryview], extent: Extent, ranges: Ranges) -> list[memoryview]:
    """The parts of ``buffers``, which hold ``extent``, that ``ranges`` of the file mean."""
    return [piece for begin, end in ranges for piece in cut(buffers, begin - extent.offset, end - extent.offset)]
