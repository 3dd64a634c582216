"""A checkpoint that only the hub has: its listing → what proves it → headers, a few bytes of each file."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from fastload._fetch.checkpoint.fetched import Fetched, FetchRequest
from fastload._fetch.checkpoint.home import OnHub
from fastload._fetch.checkpoint.remote import read_checkpoint
from fastload._fetch.evidence.weigh import weigh_hub
from fastload._read.tally import ProofTally

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._fetch.find.only_hub import HubFound
    from fastload._store.hub.tier import HubTier


def fetch_from_hub(request: FetchRequest, hub: HubTier, find: Callable[[], HubFound]) -> Fetched:
    """What ``find`` finds on ``hub``, which is closed with it."""
    with ExitStack() as undo:
        undo.callback(hub.close)
        found = find()
        offer = found.offer
        evidence, tally = weigh_hub(offer, request.settings), ProofTally(request.ledger, offer.tier)
        checkpoint = read_checkpoint(offer, request.source, evidence.whole_prover(tally), tally)
        undo.pop_all()
    return Fetched(
        checkpoint=checkpoint,
        name=request.source.name,
        folder=f"{offer.repo}@{offer.commit}",
        root="",
        tier=offer.tier,
        commit=offer.commit,
        commit_learnt="name" if found.candidate.is_pinned else str(offer.tier),
        evidence=evidence,
        tally=tally,
        home=OnHub(found, hub, request, tally),
    )
