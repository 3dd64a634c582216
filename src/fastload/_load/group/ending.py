"""What the ranks of a group do together at the end of a load: prove, mend, and tell what each did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastload._load.group.reader_proof import ProvenTogether
from fastload.errors import IntegrityError
from fastload.report import GroupReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._group.communicator import Communicator
    from fastload._load.group.rank_group import RankGroup
    from fastload._load.prove.proving import Proving
    from fastload._load.read.exchange import Exchange
    from fastload._load.request.request import Request
    from fastload._verify.manifest import ManifestFile
    from fastload.report import RankReport

_LEFT = "Load again, and let no rank close its stream and end; or make a manifest: fastload verify NAME --record"


@dataclass(frozen=True, slots=True)
class Whole:
    """What the ranks of one machine proved together."""

    node: int
    proven: dict[str, ManifestFile]


def prove_together(group: RankGroup, proving: Proving, exchange: Exchange | None, request: Request) -> ProvenTogether:
    """Wait until all that came is proven by those who read it.

    Raises:
        IntegrityError: some of it is not, and must be.
        GroupError: somebody failed.
    """
    values = group.communicator.all_gather(Whole(group.node, proving.proven))
    trusted = exchange.trusted if exchange is not None and proving.is_serial else []
    doubt = next((rank for rank in trusted if rank not in values and not group.communicator.wait_vouched(rank)), None)
    reason = "" if doubt is None else f"rank {doubt} left and ended before it had proven what it had read and sent"
    if reason and (request.settings.verify == "require" or request.settings.signature_key is not None):
        raise IntegrityError(request.source.name, 0, reason, "proof on all ranks, since it is required", _LEFT)
    mine = group.node if group.is_first_on_node else None
    files = {path: file for whole in values.values() if whole.node == mine for path, file in whole.proven.items()}
    return ProvenTogether(files, reason)


def mend_in_turn(communicator: Communicator, mend: Callable[[], None], *, is_needed: bool) -> None:
    """Replace damaged files, one rank after another: each puts its own blocks into a copy of the file.

    Those that have left go first, as soon as they have sent their share.
    """
    values = communicator.all_gather(is_needed)
    if any(values.values()):
        for left in set(range(communicator.size)) - values.keys():
            communicator.wait_vouched(left)
    for rank in (rank for rank, needs in values.items() if needs):
        if rank == communicator.rank:
            mend()
        communicator.all_gather(None)


def end_together(communicator: Communicator, own: RankReport) -> GroupReport:
    """Wait until all are done; the first of them learns what each did, those that left included."""
    values = communicator.all_gather(own)
    is_first = communicator.rank == min(values)  # rank 0, where that has not left
    if is_first:
        left = set(range(communicator.size)) - values.keys()
        values |= {rank: found for rank in left if (found := communicator.find_account(rank)) is not None}
    ranks = tuple(values[rank] for rank in sorted(values)) if is_first else (own,)
    slowest = max(values.values(), key=lambda each: each.share_s)
    what = f"rank {slowest.rank} had its share after {slowest.share_s:.2f} s: {slowest.bottleneck}"
    return GroupReport(rank=communicator.rank, size=communicator.size, ranks=ranks, slowest=slowest.rank, reason=what)
