"""How staging is divided into lanes for the chosen readers, and how all of a load is made to fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def fit(target: Target, plan: Plan, staging: Staging, *, least_lanes: int = 1) -> tuple[Staging, Sequence[Room]]:
    """``staging``, with fewer lanes where ``plan`` fits only beside fewer; extents stay as they are. And the room.

    Raises:
        MemoryBudgetError: it does not fit beside ``least_lanes``.
    """
    while True:
        rooms = target.find_rooms(plan, staging)
        try:
            check_all(rooms)
        except MemoryBudgetError:
            if staging.lanes <= least_lanes:
                raise
            staging = staging._replace(lanes=max(least_lanes, staging.lanes // 2))
        else:
            return staging, rooms


def check_all(rooms: Sequence[Room]) -> None:
    """Raise ``MemoryBudgetError`` for the first that is not there."""
    for room in rooms:
        room.check()


def _find_depth(choice: Choice, digests: bool) -> int:  # noqa: FBT001 - a fact of the load
    """How many workers a reader wants; a device takes the digests itself."""
    return choice.digesting_depth if digests and choice.digesting_depth else choice.depth
