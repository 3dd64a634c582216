"""Tensors, one after another in the order of the files, while the next ones are being read."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Self

from fastload._clock import CAST
from fastload._load.prove.note import LoadOutcome
from fastload._load.stream.ending import Kept, keep, let_go, look_again, prove_headers_alone, serve_others
from fastload._load.stream.summary import Delivered, describe_rank, summarise
from fastload._load.stream.turn import Turn
from fastload._place.cuda_memory import room_on
from fastload._place.tensors import cut_out
from fastload._thread import start_thread
from fastload._trace import CALLER_LANE, Span, Trace
from fastload.errors import UsageError, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from fastload._load.read.pipeline import Pipeline
    from fastload._load.stream.job import Job
    from fastload.report import GroupReport, Report


_log = logging.getLogger("fastload")


class Weights(dict[str, "torch.Tensor"]):
    """Tensors by name, in the order of the files; ``report`` says how they came."""

    report: Report

    def __reduce__(self) -> tuple[object, ...]:
        """As an ordered dict without the report: ``torch.load`` opens no class that it does not know."""
        return OrderedDict, (), None, None, iter(self.items())


def _begun_elsewhere() -> UsageError:
    what = "this stream is being read by the process that this one was forked from"
    return UsageError(what, "Open a stream in each process, or begin it after the fork")


class Stream:
    """Iterates over ``(name, tensor)``. Reading begins with the first one.

    :meth:`close`, leaving its ``with``, or dropping it ends the reading at once. As a generator it serves one caller at
    a time: another thread that asks meanwhile gets an error.
    """

    def __init__(self, job: Job, pipeline: Pipeline) -> None:
        self._job: Job | None = job
        self._turn = Turn()
        self._is_started = False
        self._started_in = 0
        self._position = self._delivered_bytes = 0
        self._waited_for = -1
        self._report: Report | None = None
        self._is_finished = False
        self._kept = Kept()
        self._begun_s = 0.0
        self._group_report: GroupReport | None = None
        job.clock.enter("stream")  # what passes until a tensor is asked for is no longer the plan's
        # Last: by it, __del__ knows an object that is whole.
        self._pipeline: Pipeline | None = pipeline

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
        job.group.fail(error)
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
            with room_on(job.device, tensor.nbytes):
                tensor = cut_out(tensor, job.cuts[name])
        self._delivered_bytes += tensor.nbytes
        return name, tensor

    def _start(self, job: Job, pipeline: Pipeline) -> None:
        if not self._is_started:
            self._started_in = os.getpid()
            self._is_started = True
            self._begun_s = time.perf_counter()
            job.clock.ask()
            making = job.placer.make_ahead() if job.schedule.keeps_all else iter(())
            next(making, None)  # what lanes need first
            pipeline.start()
            for _ in making:
                pass

    def _finish(self, job: Job, pipeline: Pipeline) -> None:
        """The last tensor was taken: nothing may be under way any more when this returns."""
        self._start(job, pipeline)  # a rank of a group that takes no tensor has a share to read for the others
        job.clock.enter("finish")
        pipeline.join(job.deadline)
        prove_headers_alone(job)
        job.schedule.check_not_closed("its end was awaited")
        job.placer.finish()
        look_again(job)
        self._kept = keep(job)
        self._group_report = job.group.end_together(partial(describe_rank, job, self._begun_s))
        self._is_finished = True
        self.close()
        if job.group.is_first_on_node:  # one load of a machine's ranks is one report
            now = datetime.now(UTC).isoformat(timespec="seconds")
            job.fetched.home.keep_report({**self.report.to_dict(), "finished": now})
        _log.info("%s: evidence %s: %s", escaped(job.fetched.name), self.report.evidence, self.report.evidence_reason)

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
                let_go(job, pipeline)
        finally:
            self._report = self._describe(job)

    def _describe(self, job: Job) -> Report:
        job.progress.close()
        job.clock.enter("finish")
        if job.busy.trace is not None:
            job.busy.trace.extend(job.clock.spans)
        outcome = LoadOutcome(
            is_finished=self._is_finished,
            doubt=self._kept.doubt,
            has_manifest=self._kept.has_manifest,
            hash_s=job.busy.seconds["hash"],
        )
        report = summarise(job, Delivered(self._position, self._delivered_bytes), outcome)
        return replace(report, group=self._group_report)

    def _goes_on(self, job: Job) -> bool:
        return not self._is_finished and job.group.goes_on

    def _linger(self, job: Job, pipeline: Pipeline) -> None:
        """Leave the group; a thread reads and sends what the others still wait for, and then lets go."""
        try:
            pipeline.leave()
            self._start(job, pipeline)
            job.group.leave(partial(describe_rank, job, self._begun_s))
            service = partial(serve_others, job, pipeline, self._begun_s)
            start_thread(threading.Thread(target=service, name="fastload-linger", daemon=True))
        except BaseException as error:
            job.group.fail(error)
            let_go(job, pipeline)
            raise

    @contextmanager
    def _taking_all(self) -> Iterator[None]:
        """An error in the ``with`` ends the load on all ranks of a group; else this one would count as having left."""
        try:
            yield
        except BaseException as exc:
            if self._job is not None:
                self._job.group.fail(exc)
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
