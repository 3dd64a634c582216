"""The plan of a load; where several ranks load together, all of them reckon it alike, and their shares of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._load.group.dividing import Wish
from fastload._place.host import open_passing
from fastload._plan.plan import build_plan

if TYPE_CHECKING:
    from fastload._load.found import Found
    from fastload._load.group.exchange import Exchange, Tee
    from fastload._load.staging import Staging
    from fastload._load.target import Target
    from fastload._plan.plan import Plan
    from fastload._plan.share import Share

_SHARDS_AT_ONCE = 4


def plan_load(
    found: Found, target: Target, staging: Staging, *, keeps_copy: bool
) -> tuple[Plan, Share | None, Staging]:
    """What is read, and this rank's share of it where there are others."""
    fetched, party, parts = found.fetched, found.party, found.parts
    if party is None:
        plan = build_plan(
            fetched.checkpoint,
            found.wanted,
            target.lay_out,
            extent_bytes=staging.slot_bytes,
            narrow=parts.narrow,
            read=found.spread if parts.cuts else None,
        )
        if target.window_bytes is None and not fetched.evidence.has_blocks:
            plan = plan.interleaved(_SHARDS_AT_ONCE)  # a digest of a whole file is one core's work
        return plan, None, staging
    files = tuple(((0, shard.header.file_bytes),) for shard in fetched.checkpoint.shards)
    needs_whole_files = any(
        known.blocks is None for shard in fetched.checkpoint.shards if (known := fetched.evidence.find(shard.path))
    )
    spread = files if keeps_copy else found.spread
    common = party.share_wishes(Wish(spread, staging.slot_bytes, target.window_bytes, needs_whole_files))
    staging = staging._replace(slot_bytes=common.extent_bytes)
    plan = build_plan(
        fetched.checkpoint,
        found.wanted,
        target.lay_out,
        extent_bytes=common.extent_bytes,
        narrow=parts.narrow,
        read=common.spread,
    )
    plan = common.order(plan)
    return plan, party.take_share(common, plan), staging


def open_exchange(found: Found, plan: Plan, share: Share | None, slot_bytes: int, tee: Tee) -> Exchange | None:
    """The way of extents to and from the other ranks; None where there are none."""
    if found.party is None or share is None:
        return None
    return found.party.open_exchange(share, open_passing(plan, slot_bytes), tee)
