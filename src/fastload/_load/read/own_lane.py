"""One thread's lane: into the caller's memory, and from when the caller takes nothing more, for what passes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from fastload._load.read.workplace import Workplace
    from fastload._place.placer import Lane, Placer


@dataclass(frozen=True, slots=True)
class Lanes:
    """Opens those of one load."""

    at: Workplace
    passing: Placer
    """Room for what only other ranks want."""

    def open(self) -> Lane:
        """A lane of the calling thread's own into the caller's memory."""
        return self._open(self.at.placer)

    def open_own(self) -> OwnLane:
        """The same, which becomes another one when it is time."""
        return OwnLane(self)

    def open_passing(self) -> Lane:
        """A lane of the calling thread's own for what only passes through."""
        return self._open(self.passing)

    def _open(self, placer: Placer) -> Lane:
        with self.at.busy.measure("copy", "open a lane"):
            return placer.open_lane(self.at.busy.trace)


class OwnLane:
    """One thread's."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._schedule = lanes.at.schedule
        self._is_passing = self._schedule.has_left()
        self._lane = lanes.open_passing() if self._is_passing else lanes.open()

    @property
    def current(self) -> Lane:
        """The lane for the next extent."""
        if self._schedule.has_left() and not self._is_passing:
            self._lane.close()
            self._is_passing = True
            self._lane = self._lanes.open_passing()
        return self._lane

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lane.close()
