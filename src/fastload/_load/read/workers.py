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
class Workers:
    """The workers of one load, each to be run by a thread of its own."""

    needed: Sequence[Worker]
    """Without any of these there is no load."""
    more: Sequence[Worker] = ()
    """With these it is faster."""

    def joined_by(self, *others: Worker) -> Workers:
        """The same, and ``others`` where there are threads for them, too."""
        return Workers(self.needed, (*self.more, *others))


@dataclass(frozen=True, slots=True)
class Ways:
    """By which bytes come and go besides readers and lanes; of the two, a load has one at most."""

    device_reads: DeviceReads | None = None
    """Past the host."""
    exchange: Exchange | None = None
    """From and to the other ranks of a group."""


def choose_workers(at: Workplace, ways: Ways, threads: int) -> Workers:
    """So many ``threads`` that read, each with a lane of its own; or fewer, where there are fewer extents."""
    by_host, threads = ByHost(at.busy), min(threads, len(at.plan.extents))
    if ways.exchange is not None:
        return _choose_rank_workers(at, ways.exchange, by_host, threads)
    filling = by_host if ways.device_reads is None else PastHost(ways.device_reads, by_host, at.busy)
    return _divide([Reading(Lanes(at, at.placer), filling)] * threads)


def choose_ahead_workers(at: Workplace, lanes: int) -> Workers:
    """One thread with so many ``lanes``, which has others read."""
    return Workers([Ahead(Lanes(at, at.placer), lanes)])


def _choose_rank_workers(at: Workplace, exchange: Exchange, by_host: ByHost, threads: int) -> Workers:
    """As :func:`choose_workers`, of whom none reads where this machine does not have the model."""
    lanes, sending = Lanes(at, exchange.passing), Sending(exchange, at.busy)
    reading = Reading(lanes, SentOn(sending, by_host))
    readers = _divide([reading] * threads if exchange.can_read else [])
    receivers = [Receiving(source, exchange, sending, lanes) for source in exchange.sources]
    return Workers([*receivers, *readers.needed], readers.more)


def _divide(readers: Sequence[Worker]) -> Workers:
    """One is enough."""
    return Workers(readers[:1], readers[1:])
