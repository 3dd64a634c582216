"""One rank's part in a load that several carry out together, from joining to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from fastload._load.group.agree import (
    check_content,
    check_plans,
    check_terms,
    digest_of,
    digest_of_plan,
    terms_of,
)
from fastload._load.group.dividing import Common, RankWish, find_pool
from fastload._load.group.ending import end_together, mend_in_turn, prove_together
from fastload._load.group.fetching import fetch_together
from fastload._load.group.planning import plan_together
from fastload._load.group.reader_proof import ProvenTogether, ReaderProof, share_proof
from fastload._load.group.room import check_rooms, claims_of
from fastload._load.read.exchange import Exchange
from fastload._load.read.held import Held
from fastload._place.host import open_passing
from fastload._plan.division import Member, find_sources
from fastload._plan.share import Share, share_of
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    import torch

    from fastload._budget import Room
    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.checkpoint import Shard
    from fastload._format.header import TensorInfo
    from fastload._group.pending import PendingCommunicator
    from fastload._load.group.fetching import WhenWeighed
    from fastload._load.group.planning import LoadPlan
    from fastload._load.prove.proving import Proving
    from fastload._load.read.device_reads import DeviceReads
    from fastload._load.read.exchange import Tee
    from fastload._load.read.past_host import Journey
    from fastload._load.request.request import Request
    from fastload._load.request.wanted import Wanted
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._plan.plan import Plan
    from fastload._read.choose import Choice
    from fastload.report import GroupReport, RankReport

UNDIVIDED_READERS = frozenset({"mmap", "gds"})
"""Asked for by name, these leave nothing that could be sent from rank to rank: that passes through host memory."""


class RankGroup:
    """Holds the connections of one load; see :class:`~fastload._group.communicator.Communicator`."""

    plans_alone = False
    """The others have planned with what this rank wished."""

    def __init__(self, pending: PendingCommunicator, request: Request) -> None:
        """Waits for the other ranks.

        Raises:
            GroupError: one does not come.
        """
        self._request = request
        self._reads: dict[int, bool] = {}
        self.communicator = pending.take(request.deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """After an error the others are told, and let go; else the connections belong to the stream."""
        if error is not None:
            self.fail(error)
            self.close()

    @property
    def rank(self) -> int:
        """This process's number."""
        return self.communicator.rank

    @property
    def node(self) -> int:
        """The number of its machine."""
        return self.communicator.nodes[self.rank]

    @property
    def is_first_on_node(self) -> bool:
        """True for the one rank of each machine that keeps things for all of them."""
        return self.communicator.nodes.index(self.node) == self.rank

    @property
    def goes_on(self) -> bool:
        """True as long as no rank has failed: others wait for what this one reads, whether it wants more or not."""
        return self.communicator.is_whole

    @property
    def reads(self) -> bool:
        """True if this machine has the model."""
        return self._reads[self.rank]

    @property
    def ranks_here(self) -> list[int]:
        """Those of this machine."""
        return [rank for rank, node in enumerate(self.communicator.nodes) if node == self.node]

    @property
    def sources(self) -> frozenset[int]:
        """The ranks that this one may get something from, each of which it needs a lane for."""
        return find_sources(self._pool, self.rank)

    @property
    def _pool(self) -> Sequence[Member]:
        members = [Member(rank, node, self._reads[rank]) for rank, node in enumerate(self.communicator.nodes)]
        return find_pool(members, self.rank)

    def fetch(self, verb: str, device: str, when_weighed: WhenWeighed) -> Fetched:
        """The same checkpoint on all ranks, if they are about to do the same with it.

        Raises:
            GroupError: they are not, or somebody failed.
            UnsupportedError: the reader that was asked for cannot serve a group.
            FastloadError: as :func:`~fastload._load.group.fetching.fetch_together`.
        """
        reader = self._request.settings.reader
        if reader in UNDIVIDED_READERS:
            hint = 'What is sent from rank to rank passes through host memory: use reader="auto"'
            raise UnsupportedError(f'reader="{reader}" cannot be divided over ranks', hint)
        check_terms(self.communicator.all_gather(terms_of(self._request, verb, device)))
        found = fetch_together(self.communicator, self._request, when_weighed)
        self._reads = found.reads
        return found.fetched

    def check_content(self, fetched: Fetched, wanted: Sequence[TensorInfo]) -> None:
        """Raise ``GroupError`` where the ranks have found different models."""
        check_content(self.communicator.all_gather(digest_of(fetched, wanted)))

    def readable_shards(self, found: Wanted) -> Collection[int]:
        """All that this machine has: what this rank will read is not known yet."""
        return range(len(found.fetched.checkpoint.shards)) if self.reads else ()

    def may_want_all(self, _: Wanted) -> bool:
        """True: each rank may want a part, and all of it together."""
        return True

    def may_read_ahead(self, _: Fetched, __: Mapping[int, Choice]) -> bool:
        """False: what is read ahead goes to the device alone, and others wait for it here."""
        return False

    def hold_before_plan(self, fetched: Fetched) -> Held:
        """All of it. A rank that keeps a copy needs whole files, so that it begins before the ranks agree on a plan.

        One rank of a machine makes the copy; all show that they are reading.
        """
        return Held.begin(fetched, self._request.deadline, keeps_copy=self.is_first_on_node)

    def plan(self, found: Wanted, target: Target, staging: Staging, *, keeps_copy: bool) -> LoadPlan:
        """The plan that all ranks reckon alike, and this rank's share; ``keeps_copy``: it needs all of the files.

        Raises:
            GroupError: the others have another plan.
        """
        return plan_together(self, found, target, staging, keeps_copy=keeps_copy)

    def share_wishes(self, wish: RankWish) -> Common:
        """Tell the others what this rank wants; what those that it loads with have in common."""
        wishes = self.communicator.all_gather(wish)
        pool = self._pool
        return Common(pool, {member.rank: wishes[member.rank] for member in pool})

    def check_rooms(self, rooms: Sequence[Room]) -> None:
        """Raise ``MemoryBudgetError`` where what the ranks of this machine take together is more than there is."""
        claims = self.communicator.all_gather(claims_of(rooms))
        check_rooms(rooms, [claims[rank] for rank in self.ranks_here])

    def take_share(self, common: Common, plan: Plan) -> Share:
        """What this rank has to do of ``plan``.

        Raises:
            GroupError: the others have another plan.
        """
        division = common.divide(plan)
        digests = self.communicator.all_gather(digest_of_plan(division))
        check_plans({rank: digests[rank] for rank in common.wishes})
        return share_of(division, self.rank)

    def open_device_reads(self, _: Journey, __: torch.device) -> DeviceReads | None:
        """None: what is read is sent on to others, through the memory of the host."""
        return None

    def hold_at_last(self, _: Fetched, __: DeviceReads | None) -> Held:
        """Nothing more."""
        return Held()

    def open_exchange(self, planned: LoadPlan, tee: Tee) -> Exchange | None:
        """The way of extents to and from the others."""
        if planned.share is None:
            return None
        passing = open_passing(planned.plan, planned.staging.slot_bytes)
        return Exchange(self.communicator, planned.share, passing, can_read=self.reads, tee=tee)

    def look_again(self, _: Fetched, __: Iterable[Shard]) -> None:
        """Nothing: ranks may have the model from another machine, whose paths say nothing here."""

    def prove_together(self, proving: Proving, exchange: Exchange | None) -> ProvenTogether:
        """Wait until all that came is proven by those who read it.

        Raises:
            IntegrityError: some of it is not, and must be.
            GroupError: somebody failed.
        """
        return prove_together(self, proving, exchange, self._request)

    def mend_in_turn(self, mend: Callable[[], None], *, is_needed: bool) -> None:
        """Replace damaged files, one rank after another: each puts its own blocks into a copy of the file.

        Those that have left go first, as soon as they have sent their share.
        """
        mend_in_turn(self.communicator, mend, is_needed=is_needed)

    def share_proof(self, proving: Proving, root: str) -> Proving:
        """``proving``, as far as it goes for what the other ranks read as well."""
        place = f"{self.node}:{root}"
        values = self.communicator.all_gather(ReaderProof(proving.evidence, proving.reason, proving.is_serial, place))
        readers = {member.rank: values[member.rank] for member in self._pool if member.reads and member.rank in values}
        return share_proof(proving, readers, self.rank)

    def end_together(self, account: Callable[[], RankReport]) -> GroupReport | None:
        """Wait until all are done; the first of them learns what each did, those that left included."""
        return end_together(self.communicator, account())

    def leave(self, account: Callable[[], RankReport]) -> None:
        """Want no more; what the others wait for is read and sent still."""
        self.communicator.leave(account())

    def vouch(self, account: Callable[[], RankReport]) -> None:
        """Say, after having left, that all of the share was right."""
        self.communicator.vouch(account())

    def fail(self, error: BaseException) -> None:
        """Tell the others, whose load ends by it."""
        self.communicator.fail(error)

    def close(self) -> None:
        """Let go of the connections."""
        self.communicator.close()
