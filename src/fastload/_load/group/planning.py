"""The plan of a load; where several ranks load together, all of them reckon it alike, and their shares of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastload._collector import collector_paused
from fastload._load.group.dividing import RankWish
from fastload._plan.plan import build_plan

if TYPE_CHECKING:
    from fastload._load.group.rank_group import RankGroup
    from fastload._load.request.wanted import Wanted
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._plan.plan import Plan
    from fastload._plan.ranges import Spread
    from fastload._plan.share import Share

_SHARDS_AT_ONCE = 4


class LoadPlan(NamedTuple):
    """What is read, in which order, through which staging."""

    plan: Plan
    share: Share | None
    """What this rank has to do of it; None: all."""
    staging: Staging


def plan_alone(found: Wanted, target: Target, staging: Staging) -> LoadPlan:
    """What one process reads."""
    plan = _build(found, target, staging.slot_bytes, found.spread if found.parts.cuts else None)
    if target.window_bytes is None and not found.fetched.evidence.has_blocks:
        plan = plan.interleaved(_SHARDS_AT_ONCE)  # a digest of a whole file is one core's work
    return LoadPlan(plan, None, staging)


def plan_together(group: RankGroup, found: Wanted, target: Target, staging: Staging, *, keeps_copy: bool) -> LoadPlan:
    """What the ranks read, and this one's share of it; ``keeps_copy``: it needs all of the files.

    Raises:
        GroupError: the others have another plan.
    """
    fetched = found.fetched
    files = tuple(((0, shard.header.file_bytes),) for shard in fetched.checkpoint.shards)
    needs_whole_files = any(
        known.blocks is None for shard in fetched.checkpoint.shards if (known := fetched.evidence.find(shard.path))
    )
    spread = files if keeps_copy else found.spread
    common = group.share_wishes(RankWish(spread, staging.slot_bytes, target.window_bytes, needs_whole_files))
    plan = common.order(_build(found, target, common.extent_bytes, common.spread))
    return LoadPlan(plan, group.take_share(common, plan), staging._replace(slot_bytes=common.extent_bytes))


def _build(found: Wanted, target: Target, extent_bytes: int, read: Spread | None) -> Plan:
    with collector_paused():  # of a hundred thousand tensors it takes half of the time, and finds nothing
        return build_plan(
            found.fetched.checkpoint,
            found.wanted,
            target.lay_out,
            extent_bytes=extent_bytes,
            narrow=found.parts.narrow,
            read=read,
        )
