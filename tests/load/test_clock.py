"""Stages are the whole; the verdict names what took most."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fastload._clock import CAST, TURN, Busy, Clock, Work, judge

if TYPE_CHECKING:
    import pytest


def test_stages_partition_the_time() -> None:
    begin = time.perf_counter()
    clock = Clock()
    for stage in ("plan", "stream", "finish", "finish"):
        time.sleep(0.01)
        clock.enter(stage)
    whole = time.perf_counter() - begin
    assert 0.04 <= sum(clock.stages.values()) <= whole


def test_what_passes_before_a_stream_is_asked_is_counted_once() -> None:
    clock = Clock()
    clock.enter("stream")
    time.sleep(0.01)
    clock.enter("finish")  # as of a rank that leaves, and reads its share for the others then
    clock.ask()
    unasked_s = clock.unasked_s
    assert 0.01 <= unasked_s == clock.stages["stream"]
    time.sleep(0.01)
    clock.enter("finish")
    assert clock.unasked_s == unasked_s <= clock.stages["stream"] - 0.01


def test_busy_adds_up_what_was_measured() -> None:
    busy = Busy()
    for _ in range(2):
        with busy.measure("read"):
            time.sleep(0.01)
    assert busy.seconds["read"] >= 0.02


def work(busy_s: dict[str, float], *, stream_s: float = 2.0, done_early_s: float = 0.0, **stages: float) -> Work:
    return Work(
        reader="direct",
        bytes_read=2_000_000_000,
        stages=stages | {"stream": stream_s},
        busy_s=busy_s,
        threads=4,
        done_early_s=done_early_s,
    )


def test_verdict() -> None:
    read = judge(work({"read": 3.0, "copy": 1.0}))
    assert read == ("read", "reading (direct): 75% of the workers' time, at 1.00 GB/s overall")
    assert judge(work({"read": 1.0, "wait": 3.0})).bound_by == "caller"
    nothing = Work(reader="none", bytes_read=0, stages={"stream": 0.0}, busy_s={"read": 0.0})
    assert judge(nothing).bottleneck == "nothing was read"


def test_who_waits_for_a_turn_to_digest_waits_for_digests() -> None:
    verdict = judge(work({"read": 1.0, "hash": 2.0, TURN: 5.0}))
    assert verdict == ("hash", "digesting: 88% of the workers' time, at 1.00 GB/s overall")


def test_a_cast_on_the_callers_thread_is_named() -> None:
    verdict = judge(work({"read": 1.0, "wait": 6.0, CAST: 1.5}))
    assert verdict == ("copy", "casting, which the caller's thread does: 75% of 2.00 s")
    assert judge(work({"read": 1.0, "wait": 6.0, CAST: 0.5})).bound_by == "caller"


def test_workers_that_are_done_early_wait_for_the_caller() -> None:
    assert judge(work({"read": 5.0}, done_early_s=1.5)).bound_by == "caller"
    assert judge(work({"read": 5.0}, done_early_s=0.5)).bound_by == "read"


def test_workers_that_nobody_asks_wait_for_the_caller() -> None:
    assert judge(replace(work({"read": 5.0}), unasked_s=1.5)).bound_by == "caller"
    assert judge(replace(work({"read": 5.0}), unasked_s=0.5)).bound_by == "read"


def test_a_stage_that_took_longer_than_the_stream_is_what_it_was_bound_by() -> None:
    verdict = judge(work({"read": 3.0}, stream_s=1.0, resolve=0.5, plan=2.5))
    assert verdict == ("plan", "reading headers and planning: 62% of 4.00 s")


def test_a_report_counts_waiting_for_a_turn_as_waiting() -> None:
    busy = Busy()
    for activity in (TURN, "wait"):
        with busy.measure(activity):
            time.sleep(0.01)
    assert list(busy.by_activity) == ["read", "hash", "copy", "write", "wait"]
    assert busy.by_activity["wait"] >= 0.02


def test_what_is_measured_inside_of_another_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)
    busy = Busy()
    with busy.measure("read"):
        now_s += 1
        with busy.measure("write"):
            now_s += 10
        now_s += 2
        with busy.measure("write"):
            now_s += 20
    assert (busy.seconds["write"], busy.seconds["read"]) == (30, 3)
