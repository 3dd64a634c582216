"""Who carries out a load: this process alone, or as one rank of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._load.group.rank_group import RankGroup
from fastload._load.group.single_rank import SingleRank

if TYPE_CHECKING:
    from fastload._load.request.request import Request

LoadGroup = SingleRank | RankGroup
"""Who carries out a load."""


def join(request: Request) -> LoadGroup:
    """Whoever carries out ``request``, all of them there.

    Raises:
        GroupError: one does not come.
    """
    return SingleRank(request) if request.group is None else RankGroup(request.group, request)
