"""A load that one process carries out by itself: a group of one, so that nobody above asks who else is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fastload._fetch.checkpoint.fetch import fetch
from fastload._load.group.planning import plan_alone
from fastload._load.group.reader_proof import ProvenTogether
from fastload._load.read.ahead import may_read_ahead
from fastload._load.read.held import Held
from fastload._load.read.past_host import open_device_reads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import torch

    from fastload._budget import Room
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.checkpoint import Shard
    from fastload._format.header import TensorInfo
    from fastload._load.group.fetching import WhenWeighed
    from fastload._load.group.planning import LoadPlan
    from fastload._load.prove.proving import Proving
    from fastload._load.read.device_reads import DeviceReads
    from fastload._load.read.exchange import Exchange, Tee
    from fastload._load.read.past_host import Journey
    from fastload._load.request.request import Request
    from fastload._load.request.wanted import Wanted
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._read.choose import Choice
    from fastload.report import GroupReport, RankReport


class SingleRank:
    """See :class:`~fastload._load.group.rank_group.RankGroup`, whose every question has a short answer here."""

    rank = 0
    node = 0
    is_first_on_node = True
    goes_on = False
    reads = True
    plans_alone = True
    ranks_here = (0,)
    sources: frozenset[int] = frozenset()

    def __init__(self, request: Request) -> None:
        self._request = request

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nobody needs to be told."""

    def fetch(self, verb: str, device: str, when_weighed: WhenWeighed) -> Fetched:
        """As :func:`~fastload._fetch.checkpoint.fetch.fetch`."""
        request = self._request
        return fetch(request.source, request.settings, request.deadline, when_weighed, ledger=request.ledger)

    def check_content(self, fetched: Fetched, wanted: Sequence[TensorInfo]) -> None:
        """Nobody has found anything else."""

    def readable_shards(self, found: Wanted) -> Collection[int]:
        """Those that hold a wanted tensor; and those that are a header alone: to prove that, it takes a read."""
        checkpoint = found.fetched.checkpoint
        alone = {number for number, shard in enumerate(checkpoint.shards) if shard.header.is_all}
        return alone | {shard for shard, info in checkpoint.tensors() if found.wanted(info.name)}

    def may_want_all(self, found: Wanted) -> bool:
        """True if all tensors are wanted."""
        return len(found.infos) == sum(1 for _ in found.fetched.checkpoint.tensors())

    def may_read_ahead(self, fetched: Fetched, choices: Mapping[int, Choice]) -> bool:
        """As :func:`~fastload._load.read.ahead.may_read_ahead`."""
        return may_read_ahead(fetched, choices)

    def hold_before_plan(self, fetched: Fetched) -> Held:
        """Nothing yet: whether there is a copy changes nothing of the plan."""
        return Held()

    def plan(self, found: Wanted, target: Target, staging: Staging, *, keeps_copy: bool) -> LoadPlan:
        """All of it."""
        return plan_alone(found, target, staging)

    def check_rooms(self, rooms: Sequence[Room]) -> None:
        """Nobody takes any besides."""

    def share_proof(self, proving: Proving, root: str) -> Proving:
        """``proving``: all is read here."""
        return proving

    def open_device_reads(self, journey: Journey, device: torch.device) -> DeviceReads | None:
        """As :func:`~fastload._load.read.past_host.open_device_reads`."""
        settings = self._request.settings
        return self._request.deadline.within(lambda: open_device_reads(journey, device, settings))

    def hold_at_last(self, fetched: Fetched, device_reads: DeviceReads | None) -> Held:
        """All of it. With ``reader="gds"`` there is no copy: it would need the bytes in host memory."""
        keeps_copy = self._request.settings.reader != "gds"
        held = Held.begin(fetched, self._request.deadline, keeps_copy=keeps_copy)
        if held.copy is not None and device_reads is not None:
            device_reads.refuse("what is kept on the local tier passes through the host")
        return held

    def open_exchange(self, planned: LoadPlan, tee: Tee) -> Exchange | None:
        """None: there is nobody to exchange anything with."""
        return None

    def look_again(self, fetched: Fetched, shards: Iterable[Shard]) -> None:
        """As the home of it does."""
        fetched.home.look_again(shards)

    def prove_together(self, proving: Proving, exchange: Exchange | None) -> ProvenTogether:
        """What was proven here."""
        return ProvenTogether(proving.proven, doubt="")

    def mend_in_turn(self, mend: Callable[[], None], *, is_needed: bool) -> None:
        """``mend``, if it is needed."""
        if is_needed:
            mend()

    def end_together(self, own: Callable[[], RankReport]) -> GroupReport | None:
        """None: there is no group."""
        return None

    def leave(self, own: Callable[[], RankReport]) -> None:
        """Nobody waits for anything."""

    def vouch(self, own: Callable[[], RankReport]) -> None:
        """Nobody asks."""

    def fail(self, error: BaseException) -> None:
        """Nobody needs to be told."""

    def close(self) -> None:
        """There is nothing to let go of."""
