"""What other ranks wait for is sent as soon as it is here: once it is placed, a caller may change the tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._clock import PEERS
from fastload.report import EXCHANGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._clock import Busy
    from fastload._load.read.exchange import Exchange
    from fastload._load.read.filling import ByHost, Errand
    from fastload._place.placer import Lane


class Sending:
    """Passes extents on."""

    def __init__(self, exchange: Exchange, busy: Busy) -> None:
        self._exchange = exchange
        self._busy = busy

    def is_awaited(self, number: int) -> bool:
        """True if another rank waits for extent ``number``."""
        return self._exchange.sends(number)

    def pass_on(self, number: int, buffers: Sequence[memoryview]) -> None:
        """Send extent ``number``, which is in ``buffers``, to those who wait for it, if any do."""
        if self.is_awaited(number):
            with self._busy.measure(EXCHANGE, "send"):
                self._exchange.pass_on(number, buffers, lambda: self._busy.measure(PEERS, "wait for a turn to send"))


class SentOn:
    """Fills a lane by the host, and sends what others wait for; see :class:`~fastload._load.read.filling.Filling`."""

    def __init__(self, sending: Sending, by_host: ByHost) -> None:
        self._sending = sending
        self._by_host = by_host

    def may_check_later(self, number: int) -> bool:
        """What others wait for must be proven before it is sent."""
        return not self._sending.is_awaited(number)

    def fill(self, errand: Errand, lane: Lane) -> None:
        """See :class:`~fastload._load.read.filling.Filling`."""
        self._sending.pass_on(errand.number, self._by_host.read(errand, lane))
