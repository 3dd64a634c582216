"""Which workers carry out a load: chosen once, by the ways on which its bytes come and go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._load.read.ahead import Ahead
from fastload._load.read.filling import ByHost, PastHost
from fastload._load.read.own_lane import Lanes
from fastload._load.read.reading import Reading
from fastload._load.read.receiving import Receiving
from fastload._load.read.sending import Sending, SentOn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._load.read.device_reads import DeviceReads
    from fastload._load.read.exchange import Exchange
    from fastload._load.read.workplace import Worker, Workplace


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of one load, each to be run by a thread of its own."""

    needed: Sequence[Worker]
    """Without any of these there is no load."""
    more: Sequence[Worker] = ()
    """With these it is faster."""

    def joined_by(self, *others: Worker) -> Crew:
        """The same, and ``others`` where there are threads for them, too."""
        return Crew(self.needed, (*self.more, *others))


@dataclass(frozen=True, slots=True)
class Ways:
    """By which bytes come and go besides readers and lanes; of the two, a load has one at most."""

    device_reads: DeviceReads | None = None
    """Past the host."""
    exchange: Exchange | None = None
    """From and to the other ranks of a group."""


def choose_crew(at: Workplace, ways: Ways, threads: int) -> Crew:
    """So many ``threads`` that read, each with a lane of its own; or fewer, where there are fewer extents."""
    by_host, threads = ByHost(at.busy), min(threads, len(at.plan.extents))
    if ways.exchange is not None:
        return _choose_rank_crew(at, ways.exchange, by_host, threads)
    filling = by_host if ways.device_reads is None else PastHost(ways.device_reads, by_host, at.busy)
    return _divide([Reading(Lanes(at, at.placer), filling)] * threads)


def choose_ahead_crew(at: Workplace, lanes: int) -> Crew:
    """One thread with so many ``lanes``, which has others read."""
    return Crew([Ahead(Lanes(at, at.placer), lanes)])


def _choose_rank_crew(at: Workplace, exchange: Exchange, by_host: ByHost, threads: int) -> Crew:
    """As :func:`choose_crew`, of whom none reads where this machine does not have the model."""
    lanes, sending = Lanes(at, exchange.passing), Sending(exchange, at.busy)
    reading = Reading(lanes, SentOn(sending, by_host))
    readers = _divide([reading] * threads if exchange.can_read else [])
    receivers = [Receiving(source, exchange, sending, lanes) for source in exchange.sources]
    return Crew([*receivers, *readers.needed], readers.more)


def _divide(readers: Sequence[Worker]) -> Crew:
    """One is enough."""
    return Crew(readers[:1], readers[1:])
