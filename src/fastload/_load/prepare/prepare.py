"""From a request to a job: resolve, choose readers, divide staging, plan, check that it fits. Only headers are read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastload._clock import Busy
from fastload._cpus import count_cpus
from fastload._load.prepare.fit import check_all, divide, fit
from fastload._load.prepare.proof import prove_load, resumable
from fastload._load.read.depth import tune
from fastload._load.read.held import Tee
from fastload._load.read.page_making import PageMaking
from fastload._load.read.past_host import Journey
from fastload._load.read.pipeline import Pipeline
from fastload._load.read.schedule import Schedule
from fastload._load.read.sources import Sources
from fastload._load.read.workers import Ways, choose_ahead_workers, choose_workers
from fastload._load.read.workplace import Workplace
from fastload._load.stream.job import Job
from fastload._load.stream.stream import Stream
from fastload._load.target.staging import with_least_slots
from fastload._read.ledger import Purpose
from fastload._read.measured import Measured
from fastload.errors import MemoryBudgetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fastload._clock import Clock
    from fastload._load.group.planning import LoadPlan
    from fastload._load.prepare.found import Found
    from fastload._load.prove.proving import Proving
    from fastload._load.read.device_reads import DeviceReads
    from fastload._load.read.held import Held
    from fastload._load.request.request import Request
    from fastload._load.target.staging import Staging
    from fastload._load.target.target import Target
    from fastload._place.placer import Placer
    from fastload._read.choose import Choice
    from fastload.options import Settings


@dataclass(frozen=True, slots=True)
class _Opened:
    """By which bytes come and go."""

    device_reads: DeviceReads | None
    placer: Placer
    held: Held


def prepare(request: Request, found: Found, target: Target, device: torch.device, clock: Clock) -> Stream:
    """The stream that brings what was ``found`` to ``target``, memory of ``device``.

    Raises:
        MemoryBudgetError: it would not fit.
        UsageError: ``staging_bytes`` is too small for the device.
    """
    checkpoint, deadline, group = found.fetched.checkpoint, request.deadline, found.group
    choices = deadline.within(lambda: _choose_readers(found, request.settings))
    target = target.for_readers({choice.name for choice in choices.values()})
    wish = divide(found, choices, target, request.settings)
    with ExitStack() as undo:
        early = undo.enter_context(group.hold_before_plan(found.fetched))
        planned, target = _plan(found, target, wish, keeps_copy=early.copy is not None)
        plan, share, staging = planned
        schedule = Schedule(plan.extents, window_bytes=target.window_bytes, deadline=deadline, share=share)
        busy = Busy()
        proving = prove_load(request, found, plan, choices.keys(), schedule, busy)
        journey = _journey(found, planned, choices, proving, target)
        opened = _open(found, target, planned, journey, device)
        held = early.and_later(undo.enter_context(opened.held))
        tee = Tee(checkpoint.shards, found.fetched.root, held.copy, busy, proving.proven)
        readers = tee.fed(proving.over(tee.resumed(choices, resumable(request, proving, checkpoint))))
        opening = partial(busy.measure, "read", "open")
        sources = Sources(checkpoint.shards, readers, schedule.extents_here, opening)
        lanes = 1 if staging.is_ahead else staging.lanes - len(group.sources)
        job = Job(
            fetched=found.fetched,
            plan=plan,
            proving=proving,
            held=held,
            sources=sources,
            schedule=schedule,
            placer=opened.placer,
            deadline=deadline,
            lanes=lanes,
            device=device,
            digests=target.digests,
            device_reads=opened.device_reads,
            is_cast=request.dtype is not None,
            cuts=found.cuts,
            group=group,
            exchange=group.open_exchange(planned, tee.arriving),
            clock=clock,
            busy=busy,
            progress=held.telling(request.progress, schedule.kept_bytes),
        )
        stream = Stream(job, _open_pipeline(job, staging, choices))
        undo.pop_all()
    return stream


def _open_pipeline(job: Job, staging: Staging, choices: Mapping[int, Choice]) -> Pipeline:
    at = Workplace(job.plan, job.sources, job.placer, job.schedule, job.busy)
    ways = Ways(job.device_reads, job.exchange)
    workers = choose_ahead_workers(at, staging.lanes) if staging.is_ahead else choose_workers(at, ways, job.lanes)
    # A page that is not there when a direct read begins is made by the thread that reads, while the disk waits.
    if job.schedule.keeps_all and any(choice.name == "direct" for choice in choices.values()):
        workers = workers.joined_by(PageMaking(at))
    return Pipeline(at, workers, ways)


def _plan(found: Found, target: Target, wish: Staging, *, keeps_copy: bool) -> tuple[LoadPlan, Target]:
    """What is read and by whom, through as many lanes as fit beside it and have something to do; and where it fits.

    Where only a little room is missing, extents of single blocks are tried: how large they are depends on the memory
    that there is, and of more of it they must not take what the error for less has named.
    """
    least = with_least_slots(wish)
    try:
        return _plan_through(found, target, wish, keeps_copy=keeps_copy)
    except MemoryBudgetError as exc:
        saved_bytes = (1 + wish.slots_per_lane) * (wish.slot_bytes - least.slot_bytes)  # one may be the device's
        if exc.needed_bytes - exc.available_bytes > saved_bytes or not found.group.plans_alone:
            raise
    return _plan_through(found, target, least, keeps_copy=keeps_copy)


def _plan_through(found: Found, target: Target, wish: Staging, *, keeps_copy: bool) -> tuple[LoadPlan, Target]:
    sources = len(found.group.sources)
    planned = found.group.plan(found, target, wish, keeps_copy=keeps_copy)
    staging = planned.staging
    staging = staging._replace(lanes=min(staging.lanes, max(1, len(planned.plan.extents)) + sources))
    target, staging, rooms = fit(target, planned.plan, staging, least_lanes=1 + sources)
    found.group.check_rooms(rooms)
    return planned._replace(staging=staging), target


def _open(found: Found, target: Target, planned: LoadPlan, journey: Journey, device: torch.device) -> _Opened:
    device_reads = found.group.open_device_reads(journey, device)
    if device_reads is not None:
        device_reads.when_brought(partial(found.fetched.tally.note, Purpose.WEIGHTS))
    placer = target.open_placer(planned.plan, planned.staging)
    held = found.group.hold_at_last(found.fetched, device_reads)  # last, since it takes longest to undo
    return _Opened(device_reads, placer, held)


def _journey(
    found: Found, planned: LoadPlan, choices: Mapping[int, Choice], proving: Proving, target: Target
) -> Journey:
    return Journey(
        checkpoint=found.fetched.checkpoint,
        plan=planned.plan,
        choices=choices,
        proving=proving,
        digests=target.digests,
        check_room=lambda: check_all(target.find_rooms(planned.plan, planned.staging._replace(landing_slots=1))),
    )


def _choose_readers(found: Found, settings: Settings) -> dict[int, Choice]:
    """A reader for each shard that may be read here."""
    fetched = found.fetched
    checkpoint = fetched.checkpoint
    shards, cpus = sorted(found.group.readable_shards(found)), count_cpus()
    choices = {shard: fetched.choose(checkpoint.shards[shard], settings.reader, cpus) for shard in shards}
    return tune(choices, checkpoint.shards, Measured(settings.measurements))
