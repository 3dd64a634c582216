"""What proves a load, as much as its settings demand of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._clock import TURN, Busy
from fastload._fetch.checkpoint.config import find_configs
from fastload._load.prove.proving import OFF, index_of, prove, prove_beside, require
from fastload._load.read.held import Resumable
from fastload._read.proof import ProofTell

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._format.checkpoint import Checkpoint
    from fastload._load.prepare.found import Found
    from fastload._load.prove.proving import Proving
    from fastload._load.read.schedule import Schedule
    from fastload._load.request.request import Request
    from fastload._plan.plan import Plan
    from fastload.options import Settings


def prove_load(
    request: Request, found: Found, plan: Plan, shards: Collection[int], schedule: Schedule, busy: Busy
) -> Proving:
    """What proves what is read of ``shards``, and what the other ranks read; as much as the settings demand."""
    checkpoint, evidence = found.fetched.checkpoint, found.fetched.evidence
    tell = _tell(found.fetched, busy, schedule)
    by_shards = prove(checkpoint, plan, shards, evidence, tell, here=lambda: schedule.extents_here)
    own = prove_beside(by_shards, evidence, _list_read(request, found))
    return _judge(_share_proof(own, found, request.settings), checkpoint, request.settings)


def _list_read(request: Request, found: Found) -> list[str]:
    """What was read besides shards, and tells what is handed out."""
    paths = [*index_of(found.fetched.checkpoint)]
    if request.dtype is not None:
        paths += find_configs(found.fetched, request.source.subfolder)
    return paths


def resumable(request: Request, proving: Proving, checkpoint: Checkpoint) -> Resumable:
    """The shards of which some may come from what lies on the local tier: where a wrong block can be made good.

    A block that has a digest is read from the source instead. That a file as a whole is wrong shows at its end, so that
    the load must be one that can begin once more; or the file had come to its end before, and its blocks were noted,
    so that each of them has a digest after all. What nothing proves is read at the source, whatever lies here. So is
    a shard that is a header alone, of which there is hardly anything to gain.
    """
    alone = {number for number in proving.on_host if checkpoint.shards[number].header.is_all}
    if request.may_begin_anew:
        return Resumable(anyhow=proving.proofs.keys() - alone, if_proven=())
    return Resumable(anyhow=proving.proofs.keys() - proving.on_host, if_proven=proving.on_host - alone)


def _tell(fetched: Fetched, busy: Busy, schedule: Schedule) -> ProofTell:
    return ProofTell(fetched.tally, lambda: busy.measure("hash"), lambda: busy.measure(TURN), schedule.is_stopped)


def _share_proof(proving: Proving, found: Found, settings: Settings) -> Proving:
    """In a group, what proves the bytes wherever they are read. Whose own is not enough says so itself, and before."""
    if found.group.reads:
        _judge(proving, found.fetched.checkpoint, settings)
    return found.group.share_proof(proving, found.fetched.root)


def _judge(proving: Proving, checkpoint: Checkpoint, settings: Settings) -> Proving:
    """``proving``, if it is as much as the settings demand."""
    if settings.verify == "require":
        require(proving, checkpoint, "verify is require")
    elif settings.signature_key is not None and proving.reason:
        require(proving, checkpoint, "signature_key is set")
    return replace(proving, reason=OFF) if settings.verify == "off" else proving
