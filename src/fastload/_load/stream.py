"""Tensors, one after another in the order of the files, while the next ones are being read."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Self

from fastload._clock import CAST
from fastload._fetch.record import Left
from fastload._load.evidence_note import Outcome
from fastload._load.pipeline import Pipeline, Ways
from fastload._load.proving import NONE
from fastload._load.summary import Delivered, describe_rank, summarise
from fastload._load.turn import Turn
from fastload._place.tensors import cut_out
from fastload._read.pread import check_path
from fastload._thread import start_thread
from fastload._trace import CALLER_LANE, Span, Trace
from fastload.errors import FastloadError, UsageError, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch

    from fastload._clock import Busy, Clock
    from fastload._fetch.deadline import Deadline
    from fastload._fetch.fetched import Fetched
    from fastload._fetch.through import Copy
    from fastload._load.device_reads import DeviceReads
    from fastload._load.group.exchange import Exchange
    from fastload._load.group.party import Party
    from fastload._load.held import Held
    from fastload._load.proving import Proving
    from fastload._load.schedule import Schedule
    from fastload._load.sources import Sources
    from fastload._place.device_digests import DeviceDigests
    from fastload._place.placer import Placer
    from fastload._plan.plan import Plan
    from fastload._plan.ranges import Ranges
    from fastload._progress import Progress
    from fastload.report import GroupReport, Report


_log = logging.getLogger("fastload")


class Weights(dict[str, "torch.Tensor"]):
    """Tensors by name, in the order of the files; ``report`` says how they came."""

    report: Report

    def __reduce__(self) -> tuple[object, ...]:
        """As an ordered dict without the report: ``torch.load`` opens no class that it does not know."""
        return OrderedDict, (), None, None, iter(self.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that one load needs, decided and checked, nothing of it begun."""

    fetched: Fetched
    plan: Plan
    proving: Proving
    held: Held
    sources: Sources
    schedule: Schedule
    placer: Placer
    deadline: Deadline
    lanes: int
    """Threads that read, each with a lane."""
    ahead_lanes: int
    """Instead of them, lanes of one thread that has others read; 0: none."""
    device: torch.device
    digests: DeviceDigests | None
    device_reads: DeviceReads | None
    """The way past the host; None where there is no device."""
    is_cast: bool
    """True if tensors are cast as they are taken, by the thread that takes them."""
    cuts: Mapping[str, tuple[Ranges, ...]]
    """What stays, by name, in each dimension of tensors of which more was brought."""
    party: Party | None
    """The other ranks, where several load together."""
    exchange: Exchange | None
    clock: Clock
    busy: Busy
    progress: Progress


def _begun_elsewhere() -> UsageError:
    what = "this stream is being read by the process that this one was forked from"
    return UsageError(what, "Open a stream in each process, or begin it after the fork")


class Stream:
    """Iterates over ``(name, tensor)``. Reading begins with the first one.

    :meth:`close`, leaving its ``with``, or dropping it ends the reading at once. As a generator it serves one caller at
    a time: another thread that asks meanwhile gets an error.
    """

    def __init__(self, job: Job) -> None:
        self._job: Job | None = job
        self._turn = Turn()
        self._is_started = False
        self._started_in = 0
        self._position = self._delivered_bytes = 0
        self._waited_for = -1
        self._report: Report | None = None
        self._is_finished = False
        self._left = Left()
        self._begun_s = 0.0
        self._doubt = ""
        self._group_report: GroupReport | None = None
        # Last: by it, __del__ knows an object that is whole.
        ways = Ways(job.device_reads, job.exchange, job.ahead_lanes)
        self._pipeline: Pipeline | None = Pipeline(job.plan, job.sources, job.placer, job.schedule, job.busy, ways)

    @property
    def report(self) -> Report:
        """What was done, once the stream has ended or was closed.

        Raises:
            UsageError: it has not.
        """
        if self._report is None:
            raise UsageError("this stream has no report yet", "Iterate to its end, or close it")
        return self._report

    def start_trace(self) -> Trace:
        """Record which thread, stage and device stream does what and when; complete once the stream is closed.

        Raises:
            UsageError: reading has begun.
        """
        if self._is_started or self._job is None:
            raise UsageError("this stream has begun to read", "Start the trace before the first tensor is taken")
        self._job.busy.trace = Trace()
        return self._job.busy.trace

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[str, torch.Tensor]:
        if self._is_elsewhere():
            raise _begun_elsewhere()
        with self._turn:
            job, pipeline = self._job, self._pipeline
            if job is None or pipeline is None:
                raise StopIteration
            try:
                if self._position < len(job.plan.placements):
                    return self._take(job, pipeline)
                self._finish(job, pipeline)
            except StopIteration as exc:  # a callback's, and would pass for the end: see PEP 479
                self._give_up(job, exc)
                raise RuntimeError("a callback raised StopIteration") from exc
            except BaseException as exc:
                self._give_up(job, exc)
                raise
            raise StopIteration

    def _is_elsewhere(self) -> bool:
        """True in a forked child, where no worker is left, and a lock that one held is locked for ever."""
        return self._is_started and self._started_in != os.getpid()

    def _give_up(self, job: Job, error: BaseException) -> None:
        if job.party is not None:
            job.party.communicator.fail(error)
        self.close()

    def _take(self, job: Job, pipeline: Pipeline) -> tuple[str, torch.Tensor]:
        job.deadline.check()
        self._start(job, pipeline)
        number = self._position
        needed = job.plan.ready_after[number]
        if needed > self._waited_for:
            needed = job.schedule.far_from(needed)
            begin_s = time.perf_counter()
            job.schedule.wait_placed(needed, job.progress.update)
            if job.busy.trace is not None:
                job.busy.trace.add(Span(CALLER_LANE, "wait for bytes", "wait", begin_s, time.perf_counter(), {}))
            job.placer.catch_up()
            self._waited_for = needed
        if job.is_cast:
            with job.busy.measure(CAST):
                tensor = job.placer.take(number)
        else:
            tensor = job.placer.take(number)
        self._position += 1
        name = job.plan.placements[number].info.name
        if name in job.cuts:
            tensor = cut_out(tensor, job.cuts[name])
        self._delivered_bytes += tensor.nbytes
        return name, tensor

    def _start(self, job: Job, pipeline: Pipeline) -> None:
        if not self._is_started:
            self._started_in = os.getpid()
            self._is_started = True
            self._begun_s = time.perf_counter()
            job.clock.enter("stream")
            making = job.placer.make_ahead() if job.schedule.keeps_all else iter(())
            next(making, None)  # what lanes need first
            pipeline.start(job.lanes)
            for _ in making:
                pass

    def _finish(self, job: Job, pipeline: Pipeline) -> None:
        """The last tensor was taken: nothing may be under way any more when this returns."""
        self._start(job, pipeline)  # a rank of a group that takes no tensor has a share to read for the others
        job.clock.enter("finish")
        pipeline.join(job.deadline)
        job.placer.finish()
        _look_again(job)
        self._keep(job)
        if job.party is not None:
            self._group_report = job.party.end_together(describe_rank(job, job.party, job.exchange, self._begun_s))
        self._is_finished = True
        self.close()
        if job.party is None or job.party.is_first_on_node:  # one load of a machine's ranks is one report
            now = datetime.now(UTC).isoformat(timespec="seconds")
            job.fetched.keep_report({**self.report.to_dict(), "finished": now})
        _log.info("%s: evidence %s: %s", escaped(job.fetched.name), self.report.evidence, self.report.evidence_reason)

    def _keep(self, job: Job) -> None:
        """What stays on storage of this load: mended blocks, the copy on the local tier, a manifest."""
        proven = job.proving.proven
        if job.party is not None:
            together = job.party.prove_together(job.proving, job.exchange)
            proven, self._doubt = together.files, together.doubt
            job.party.mend_in_turn(job.fetched.mend_stored, is_needed=job.fetched.tally.repaired > 0)
        elif job.fetched.tally.repaired:
            job.clock.enter("publish")
            job.fetched.mend_stored()
        # Only of a whole checkpoint is the copy whole, too.
        if job.proving.is_whole and (job.held.copy is not None or proven):
            job.clock.enter("publish")
            if job.held.copy is not None:
                self._keep_copy(job, job.held.copy)
            self._left = job.fetched.record(proven)

    def _keep_copy(self, job: Job, copy: Copy) -> None:
        if job.proving.may_be_kept and not self._doubt:
            copy.publish()
            return
        why = escaped(self._doubt or job.proving.reason)
        _log.warning("%s was loaded, but not kept on the local tier: unproven, %s", escaped(job.fetched.name), why)

    def close(self) -> None:
        """End reading, give back threads, descriptors and staging, and make the report. What was taken stays valid.

        In a group that goes on, this rank goes on as well, in the background: others wait for its share. A forked child
        only forgets its copy.
        """
        if self._is_elsewhere():
            self._job = self._pipeline = None
            return
        job = self._job
        if job is not None:
            if not self._goes_on(job):
                job.schedule.stop()  # whoever waits for a tensor in another thread waits in vain, and lets us in
            with self._turn.lock:
                self._close()

    def _close(self) -> None:
        job, self._job = self._job, None
        pipeline, self._pipeline = self._pipeline, None  # it has the memory of what was read and not taken
        if job is None or pipeline is None:
            return
        try:  # with nothing before it at which Ctrl-C could come: nobody else closes this any more
            job.clock.enter("finish")
            if self._goes_on(job):
                self._linger(job, pipeline)
            else:
                _let_go(job, pipeline)
        finally:
            self._report = self._describe(job)

    def _describe(self, job: Job) -> Report:
        job.progress.close()
        job.clock.enter("finish")
        if job.busy.trace is not None:
            job.busy.trace.extend(job.clock.spans)
        outcome = Outcome(
            is_finished=self._is_finished,
            doubt=self._doubt,
            left=self._left,
            hash_s=job.busy.seconds["hash"],
        )
        report = summarise(job, Delivered(self._position, self._delivered_bytes), outcome)
        return replace(report, group=self._group_report)

    def _goes_on(self, job: Job) -> bool:
        return job.party is not None and not self._is_finished and job.party.communicator.is_whole

    def _linger(self, job: Job, pipeline: Pipeline) -> None:
        """Leave the group; a thread reads and sends what the others still wait for, and then lets go."""
        try:
            pipeline.leave()
            self._start(job, pipeline)
            if job.party is not None:
                job.party.communicator.leave(describe_rank(job, job.party, job.exchange, self._begun_s))
            service = partial(_serve, job, pipeline, self._begun_s)
            start_thread(threading.Thread(target=service, name="fastload-linger", daemon=True))
        except BaseException as error:
            if job.party is not None:
                job.party.communicator.fail(error)
            _let_go(job, pipeline)
            raise

    @contextmanager
    def taking_all(self) -> Iterator[None]:
        """An error in the ``with`` ends the load on all ranks of a group; else this one would count as having left."""
        try:
            yield
        except BaseException as exc:
            if self._job is not None and self._job.party is not None:
                self._job.party.communicator.fail(exc)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Of a half-made object there is nothing to close. (`for … in stream(…): break` ends here.)
        pipeline: Pipeline | None = getattr(self, "_pipeline", None)
        if pipeline is None:
            return
        if pipeline.is_worker():
            # The collector runs wherever memory is asked for. A worker cannot wait for itself, and it may hold a lock.
            start_thread(threading.Thread(target=self.close, name="fastload-close", daemon=True))
        else:
            self.close()


def _look_again(job: Job) -> None:
    """Of what nothing proves, a shard that was read first may have become another revision's while the rest was read.

    Ranks of a group may have the model from another machine: their paths say nothing.
    """
    if job.proving.evidence == NONE and job.fetched.remote is None and job.party is None:
        for number in {extent.shard for extent in job.plan.extents}:
            check_path(job.fetched.checkpoint.shards[number])


def _let_go(job: Job, pipeline: Pipeline) -> None:
    """Give everything back, also where Ctrl-C comes in the midst of it: it ends one step and no other."""
    with ExitStack() as undo:
        if job.party is not None:
            undo.callback(job.party.communicator.close)
        undo.callback(job.fetched.close)
        undo.callback(job.held.close)
        undo.callback(pipeline.close)


def _serve(job: Job, pipeline: Pipeline, begun_s: float) -> None:
    """What a rank does for the others after it has left."""
    try:
        pipeline.join(job.deadline)
        if job.fetched.tally.repaired:
            job.fetched.mend_stored()  # the others wait for it before they mend what they have found
        if job.party is not None:
            job.party.communicator.vouch(describe_rank(job, job.party, job.exchange, begun_s))
    except FastloadError as exc:
        _log.info("%s: left its group before the end, which failed: %s", escaped(job.fetched.name), exc)
    finally:
        _let_go(job, pipeline)
