"""What is done when the last tensor was taken, or nobody takes any more."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastload._load.stream.summary import describe_rank
from fastload._verify.evidence_kind import EvidenceKind
from fastload.errors import FastloadError, escaped

if TYPE_CHECKING:
    from fastload._fetch.bring.through import Copy
    from fastload._load.read.pipeline import Pipeline
    from fastload._load.stream.job import Job

_log = logging.getLogger("fastload")


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays on storage of a load."""

    has_manifest: bool = False
    """True if the next load finds its proof in one."""
    doubt: str = ""
    """Why bytes that another rank sent were never proven; empty: they were."""


def keep(job: Job) -> Kept:
    """Let stay on storage what this load has made: mended blocks, the copy on the local tier, a manifest."""
    together = job.group.prove_together(job.proving, job.exchange)
    proven, doubt = together.files, together.doubt
    is_repaired = job.fetched.tally.ledger.repaired > 0
    if is_repaired:
        job.clock.enter("publish")
    job.group.mend_in_turn(job.fetched.home.mend_stored, is_needed=is_repaired)
    # Only of a whole checkpoint is the copy whole, too.
    if not job.proving.is_whole or (job.held.copy is None and not proven):
        return Kept(doubt=doubt)
    job.clock.enter("publish")
    if job.held.copy is not None:
        _keep_copy(job, job.held.copy, doubt)
    return Kept(job.fetched.home.record(proven), doubt)


def _keep_copy(job: Job, copy: Copy, doubt: str) -> None:
    if job.proving.may_be_kept and not doubt:
        copy.publish()
        return
    why = escaped(doubt or job.proving.reason)
    _log.warning("%s was loaded, but not kept on the local tier: unproven, %s", escaped(job.fetched.name), why)


def prove_headers_alone(job: Job) -> None:
    """Prove what is known as a whole, and of which no extent is read: a shard without a tensor that has bytes.

    Raises:
        IntegrityError: it is another one, which may have lost its tensors.
        DeadlineError: it is time to give up.
    """
    read = {extent.shard for extent in job.plan.extents}
    for number in sorted(job.proving.on_host - read):
        job.deadline.within(partial(job.sources.open_once, number))


def look_again(job: Job) -> None:
    """Of what nothing proves, a shard that was read first may have become another revision's since then."""
    if job.proving.evidence is EvidenceKind.NONE:
        numbers = {extent.shard for extent in job.plan.extents}
        job.group.look_again(job.fetched, [job.fetched.checkpoint.shards[number] for number in numbers])


def let_go(job: Job, pipeline: Pipeline) -> None:
    """Give everything back, also where Ctrl-C comes in the midst of it: it ends one step and no other."""
    with ExitStack() as undo:
        undo.callback(job.group.close)
        undo.callback(job.fetched.close)
        undo.callback(job.held.close)
        undo.callback(pipeline.close)


def serve_others(job: Job, pipeline: Pipeline, begun_s: float) -> None:
    """What a rank does for the others after it has left."""
    try:
        pipeline.join(job.deadline)
        if job.fetched.tally.ledger.repaired:
            job.fetched.home.mend_stored()  # the others wait for it before they mend what they have found
        job.group.vouch(partial(describe_rank, job, begun_s))
    except FastloadError as exc:
        _log.info("%s: left its group before the end, which failed: %s", escaped(job.fetched.name), exc)
    finally:
        let_go(job, pipeline)
