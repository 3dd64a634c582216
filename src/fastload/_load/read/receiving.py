"""The worker that takes in what one other rank has read and proven."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastload._load.read.exchange import LeftError
from fastload._load.read.filling import facts_of
from fastload.errors import GroupError
from fastload.report import EXCHANGE

if TYPE_CHECKING:
    from fastload._load.read.exchange import Exchange
    from fastload._load.read.own_lane import Lanes
    from fastload._load.read.sending import Sending
    from fastload._place.placer import Lane
    from fastload._read.reader import Reader

_LEFT_HINT = "Let ranks on machines with the model take all tensors, or bring the model up on all machines"


class Receiving:
    """See :class:`~fastload._load.read.workplace.Worker`; each rank that sends has one."""

    def __init__(self, source: int, exchange: Exchange, sending: Sending, lanes: Lanes) -> None:
        self._source = source
        self._exchange = exchange
        self._sending = sending
        self._lanes = lanes
        self._at = lanes.at
        self._last = -1

    def run(self) -> None:
        """Bring what comes; where the rank has left, its share is read here."""
        if not self._take_in_all() and not self._at.schedule.has_left():
            self._take_over()

    def _take_in_all(self) -> bool:
        """False if the rank has left, and sends no more."""
        try:
            with self._lanes.open_own() as own:
                for number, reader in self._exchange.arrivals(self._source):
                    if not self._at.schedule.wait_room(number):
                        return True
                    self._take_in(number, reader, own.current)
                    self._last = number
        except LeftError:
            return False
        return True

    def _take_in(self, number: int, reader: Reader, lane: Lane) -> None:
        extent, busy = self._at.plan.extents[number], self._at.busy
        with busy.measure("copy", "wait for a slot"):
            buffers = lane.buffers_for(extent, reader.alignment_bytes)
        with busy.measure(EXCHANGE, "receive", partial(facts_of, extent)):
            reader.read_into(extent.offset, buffers)
        self._sending.pass_on(number, buffers)
        with busy.measure("copy", "place"):
            lane.place(partial(self._at.schedule.finish, number, is_read=False))

    def _take_over(self) -> None:
        missing = self._exchange.missing_after(self._source, self._last)
        if self._exchange.can_read:
            self._at.sources.expect([self._at.plan.extents[number] for number in missing])
            self._at.schedule.take_over(missing)
        elif missing:
            raise GroupError(f"rank {self._source} left, and this machine does not have the model", _LEFT_HINT)
