"""The worker that reads: an extent from storage, into its place, and the next."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastload._clock import PEERS
from fastload._load.read.filling import Errand
from fastload._read.proof import BlockProof

if TYPE_CHECKING:
    from fastload._load.read.filling import Filling
    from fastload._load.read.own_lane import Lanes
    from fastload._place.placer import Lane
    from fastload._plan.extent import Extent
    from fastload._read.reader import Reader


class Reading:
    """See :class:`~fastload._load.read.workplace.Worker`; several threads may run one."""

    def __init__(self, lanes: Lanes, filling: Filling) -> None:
        self._lanes = lanes
        self._filling = filling
        self._plan = lanes.at.plan
        self._sources = lanes.at.sources
        self._schedule = lanes.at.schedule
        self._busy = lanes.at.busy

    def run(self) -> None:
        """Bring what the schedule gives."""
        with self._lanes.open_own() as own:
            while (number := self._next(own.current)) is not None:
                self._bring(number, own.current)

    def _next(self, lane: Lane) -> int | None:
        activity = PEERS if self._schedule.waits_for_others() else "wait"
        with self._busy.measure(activity, "wait for room"):
            return self._schedule.start(partial(self._settle, lane))

    def _settle(self, lane: Lane) -> None:
        with self._busy.measure("copy", "settle"):
            lane.settle()

    def _bring(self, number: int, lane: Lane) -> None:
        extent = self._plan.extents[number]
        with self._sources.reader_for(extent.shard) as reader:
            errand = self._prepare(number, extent, reader, lane)
            self._filling.fill(errand, lane)
            with self._busy.measure("copy", "place"):
                lane.place(partial(self._schedule.finish, number), errand.check)

    def _prepare(self, number: int, extent: Extent, reader: Reader, lane: Lane) -> Errand:
        if not isinstance(reader, BlockProof):
            return Errand(number, extent, reader, None, is_checked=True)
        is_checked = lane.takes_digests and self._filling.may_check_later(number)
        check = reader.check(extent.offset, extent.length) if is_checked else None
        return Errand(number, extent, reader, check, is_checked)
