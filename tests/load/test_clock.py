"""Stages are the whole; the verdict names what took most."""

from __future__ import annotations

import time

from fastload._clock import Busy, Clock, judge


def test_stages_partition_the_time() -> None:
    begin = time.perf_counter()
    clock = Clock()
    for stage in ("plan", "stream", "finish", "finish"):
        time.sleep(0.01)
        clock.enter(stage)
    whole = time.perf_counter() - begin
    assert 0.04 <= sum(clock.stages.values()) <= whole


def test_busy_adds_up_what_was_measured() -> None:
    busy = Busy()
    for _ in range(2):
        with busy.measure("read"):
            time.sleep(0.01)
    assert busy.seconds["read"] >= 0.02


def test_verdict() -> None:
    facts = {"reader": "direct", "bytes_read": 2_000_000_000, "stream_s": 2.0}
    read = judge({"read": 3.0, "copy": 1.0}, **facts)  # type: ignore[arg-type] # one dict of several types
    assert read == ("read", "reading (direct): 75% of the workers' time, at 1.00 GB/s overall")
    caller = judge({"read": 1.0, "wait": 3.0}, **facts)  # type: ignore[arg-type] # likewise
    assert caller.bound_by == "caller"
    assert judge({"read": 0.0}, reader="none", bytes_read=0, stream_s=0.0).bottleneck == "nothing was read"


def test_what_is_measured_inside_of_another_counts_once() -> None:
    busy = Busy()
    with busy.measure("read"):
        with busy.measure("write"):
            time.sleep(0.05)
        with busy.measure("write"):
            time.sleep(0.05)
    assert busy.seconds["write"] >= 0.1
    assert busy.seconds["read"] < 0.05
