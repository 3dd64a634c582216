"""How staging is divided into lanes for the chosen readers, and how all of a load is made to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastload._load.target.staging import Staging, divide_ahead, divide_staging
from fastload.errors import MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastload._budget import Room
    from fastload._load.prepare.found import Found
    from fastload._load.target.target import Target
    from fastload._plan.plan import Plan
    from fastload._read.choose import Choice
    from fastload.options import Settings


def divide(found: Found, choices: Mapping[int, Choice], target: Target, settings: Settings) -> Staging:
    """The lanes that the chosen readers want; those of one thread that has others read, where that is possible."""
    if target.reads_ahead and settings.reader == "auto" and found.group.may_read_ahead(found.fetched, choices):
        ahead = divide_ahead(settings.staging_bytes, found.headroom)
        if ahead is not None:
            return ahead
    sources = len(found.group.sources)
    digests = found.fetched.evidence.has_blocks and target.digests is None
    depth = max((_find_depth(choice, digests) for choice in choices.values()), default=1)
    wish = Staging(depth + sources, target.slots_per_lane, target.extent_bytes)
    return divide_staging(settings.staging_bytes, found.headroom, wish, least_lanes=1 + sources)


class Fitted(NamedTuple):
    """A load that fits into the memory that there is."""

    target: Target
    staging: Staging
    rooms: Sequence[Room]


def fit(target: Target, plan: Plan, staging: Staging, *, least_lanes: int = 1) -> Fitted:
    """``staging`` with fewer lanes, then ``target`` with a smaller window, where ``plan`` fits only so.

    Both only make a load faster. Extents stay as they are.

    Raises:
        MemoryBudgetError: it does not fit beside ``least_lanes`` without reading ahead; gives the least it needs.
    """
    while True:
        rooms = target.find_rooms(plan, staging)
        try:
            check_all(rooms)
        except MemoryBudgetError:
            if staging.lanes > least_lanes:
                staging = staging._replace(lanes=max(least_lanes, staging.lanes // 2))
                continue
            less = target.reading_less_ahead()
            if less is None:
                raise
            target = less
        else:
            return Fitted(target, staging, rooms)


def check_all(rooms: Sequence[Room]) -> None:
    """Raise ``MemoryBudgetError`` for the first that is not there."""
    for room in rooms:
        room.check()


def _find_depth(choice: Choice, digests: bool) -> int:  # noqa: FBT001 - a fact of the load
    """How many workers a reader wants; a device takes the digests itself."""
    return choice.digesting_depth if digests and choice.digesting_depth else choice.depth
