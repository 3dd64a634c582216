"""What the workers of one load work on, and what each of them is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from fastload._clock import Busy
    from fastload._load.read.schedule import Schedule
    from fastload._load.read.sources import Sources
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Workplace:
    """What they share."""

    plan: Plan
    sources: Sources
    placer: Placer
    schedule: Schedule
    busy: Busy


class Worker(Protocol):
    """One thread's part in a load."""

    def run(self) -> None:
        """Return when there is nothing left to do; an error ends the load."""
