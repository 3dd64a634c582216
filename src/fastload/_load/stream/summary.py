"""What a load did, put together for its report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from fastload._clock import PEERS, Work, judge
from fastload._load.prove.note import explain_evidence, find_evidence_kind
from fastload._read.ledger import Purpose
from fastload.report import RankReport, Report

if TYPE_CHECKING:
    from fastload._clock import Verdict
    from fastload._load.prove.note import LoadOutcome
    from fastload._load.read.device_reads import DeviceReads
    from fastload._load.read.sources import Sources
    from fastload._load.stream.job import Job


class Delivered(NamedTuple):
    """What was handed out."""

    tensors: int
    nbytes: int


def summarise(job: Job, delivered: Delivered, outcome: LoadOutcome) -> Report:
    """The facts of ``job``, of which so much was ``delivered``."""
    reader, reason = describe_readers(job.sources, job.device_reads)
    ledger, here_bytes = job.fetched.tally.all_tries, job.fetched.tally.ledger.bytes_for(Purpose.HERE)
    hashed_on, hashed_reason = _describe_hashing(job)
    verdict = judge(_work_of(job))
    return Report(
        bytes=delivered.nbytes,
        bytes_read=ledger.own_bytes,
        bytes_by_tier=ledger.by_tier(job.fetched.tier),
        tensors=delivered.tensors,
        seconds=sum(job.clock.stages.values()),
        stages=dict(job.clock.stages),
        busy_s=_sum_busy(job),
        bound_by=verdict.bound_by,
        bottleneck=verdict.bottleneck,
        tier=str(job.fetched.tier),
        commit=job.fetched.commit,
        commit_learnt=job.fetched.commit_learnt,
        reader=reader,
        reader_reason=f"{reason}; {here_bytes:,} bytes were on the local tier" if here_bytes else reason,
        evidence=find_evidence_kind(job.proving, outcome).value,
        evidence_reason=explain_evidence(job.proving, job.fetched, outcome),
        hashed_on=hashed_on,
        hashed_reason=hashed_reason,
        blocks_verified=job.fetched.tally.verified,
        blocks_reread=ledger.reread,
        blocks_repaired=ledger.repaired,
        peak_staging_bytes=job.placer.staging_bytes,
        device=str(job.device),
    )


def _sum_busy(job: Job) -> dict[str, float]:
    """With what was hashed before the stream began, which no part of it waited for."""
    busy_s = job.busy.by_activity
    return busy_s | {"hash": busy_s["hash"] + job.fetched.tally.ahead_hash_s}


def describe_rank(job: Job, begun_s: float) -> RankReport:
    """What this rank of a group did, for the others; while it does it, where it has left."""
    work, exchange = _work_of(job), job.exchange
    share_s = max(0.0, job.schedule.read_at_s - begun_s) if work.bytes_read else 0.0
    return RankReport(
        rank=job.group.rank,
        node=job.group.node,
        bytes_read=job.fetched.tally.all_tries.own_bytes,
        bytes_sent=exchange.sent_bytes if exchange is not None else 0,
        bytes_received=exchange.received_bytes if exchange is not None else 0,
        share_s=share_s,
        seconds=sum(job.clock.stages.values()),
        bottleneck=_judge_share(work, share_s).bottleneck,
        left_early=job.schedule.has_left(),
    )


def _judge_share(work: Work, share_s: float) -> Verdict:
    """Why a rank had its share when it had it, whatever it waited for before and after, and for others meanwhile.

    Who has left has read some of it after its stream, or all.
    """
    own_s = {activity: seconds for activity, seconds in work.busy_s.items() if activity != PEERS}
    stages = {"stream": max(work.stages["stream"] - work.unasked_s, share_s)}
    return judge(replace(work, stages=stages, busy_s=own_s, unasked_s=0.0, done_early_s=0.0))


def _work_of(job: Job) -> Work:
    return Work(
        reader=describe_readers(job.sources, job.device_reads)[0],
        bytes_read=job.schedule.read_bytes,
        stages=dict(job.clock.stages),
        busy_s=dict(job.busy.seconds),
        threads=job.lanes,
        unasked_s=job.clock.unasked_s,
        done_early_s=_done_early_s(job),
    )


def _done_early_s(job: Job) -> float:
    """How long the stream went on when its last worker had ended; 0 where it was closed before they had."""
    stages = (span for span in job.clock.spans if span.name == "stream")
    return max((0.0, *(span.end_s - job.busy.last_s for span in stages)))


def describe_readers(sources: Sources, device_reads: DeviceReads | None) -> tuple[str, str]:
    """Which readers served, the way past the host among them, and why."""
    reader, reason = sources.describe()
    if device_reads is None:
        return reader, reason
    name, why = device_reads.describe()
    return (f"{name}+{reader}", f"{why}; the rest {reason}") if name else (reader, f"{reason}; no gds: {why}")


def _describe_hashing(job: Job) -> tuple[str, str]:
    """Where the digests were taken, and why there."""
    tally, device = job.fetched.tally, str(job.device)
    if not tally.verified:
        return "none", "nothing was digested"
    if not tally.on_device:
        return "cpu", _why_on_cpu(job)
    on_cpu = tally.verified - tally.on_device
    if on_cpu:
        return f"{device}+cpu", f"{on_cpu} of {tally.verified} blocks on the cpu: {_why_on_cpu(job)}"
    return device, "the blocks are digested where they arrive"


def _why_on_cpu(job: Job) -> str:
    if job.device.type == "cpu":
        return "the tensors are in host memory"
    if job.digests is None:
        return "digests of whole files are taken in order"
    return "what is kept on the local tier is proven before it is written" if job.held.copy else job.digests.explain()
