"""The trace of a load: a lane for every thread and stage, which together account for the report's numbers."""

from __future__ import annotations

import itertools
import json
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from fastload._trace import Span, Trace
from forked import run_fastload
from models import MIB, save_large
from proven_models import flip

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def load_traced(folder: Path) -> tuple[Trace, fastload.Report]:
    with fastload.stream(folder, reader="buffered") as stream:
        trace = stream.start_trace()
        assert sum(1 for _ in stream) == 16
    return trace, stream.report


def test_stages_are_the_reports(tmp_path: Path) -> None:
    save_large(tmp_path)
    trace, report = load_traced(tmp_path)
    seconds: dict[str, float] = defaultdict(float)
    for span in trace.spans:
        if span.lane == "stages":
            seconds[span.name] += span.end_s - span.begin_s
    assert {name: s for name, s in report.stages.items() if s} == pytest.approx(seconds)


def test_every_extent_is_read_in_some_threads_lane(tmp_path: Path) -> None:
    save_large(tmp_path)
    trace, report = load_traced(tmp_path)
    reads = [span for span in trace.spans if span.name == "read (buffered)"]
    assert {span.lane for span in reads} <= {f"fastload-{number}" for number in range(64)}
    header_bytes = report.bytes_read - sum(int(str(span.facts["bytes"])) for span in reads)
    assert 0 < header_bytes < 4096
    assert sum(span.end_s - span.begin_s for span in trace.spans if span.kind == "read") == pytest.approx(
        report.busy_s["read"]
    )


def test_spans_of_a_lane_follow_or_contain_one_another(tmp_path: Path) -> None:
    """A viewer draws what overlaps otherwise as nonsense."""
    save_large(tmp_path)
    fastload.verify(tmp_path, record=True)
    trace, report = load_traced(tmp_path)
    assert report.blocks_verified
    assert any(span.name == "hash" for span in trace.spans)
    for lane in {span.lane for span in trace.spans}:
        spans = [span for span in trace.spans if span.lane == lane]
        for a, b in itertools.combinations(spans, 2):
            apart = a.end_s <= b.begin_s or b.end_s <= a.begin_s
            inside = a.begin_s <= b.begin_s <= b.end_s <= a.end_s or b.begin_s <= a.begin_s <= a.end_s <= b.end_s
            assert apart or inside, (a, b)


def test_the_caller_has_a_lane_of_what_it_waited_for(tmp_path: Path) -> None:
    save_large(tmp_path)
    trace, _ = load_traced(tmp_path)
    assert {span.name for span in trace.spans if span.lane == "caller"} == {"wait for bytes"}


def test_a_stream_that_has_begun_cannot_be_traced(tmp_path: Path) -> None:
    save_large(tmp_path, 2, MIB)
    with fastload.stream(tmp_path) as stream:
        next(stream)
        with pytest.raises(fastload.UsageError, match="begun"):
            stream.start_trace()
    with pytest.raises(fastload.UsageError, match="begun"):
        stream.start_trace()


def test_chrome_events() -> None:
    trace = Trace()
    trace.add(Span("fastload-10", "read", "read", 2.0, 2.5, {"bytes": 7}))
    trace.add(Span("fastload-2", "hash", "hash", 1.0, 1.5, {}))
    trace.add(Span("stages", "plan", "stage", 0.5, 3.0, {}))
    found = json.loads(json.dumps(trace.to_dict()))
    events: list[dict[str, Any]] = found["traceEvents"]
    lanes = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert lanes == {"stages": 0, "fastload-2": 1, "fastload-10": 2}
    orders = {e["tid"]: e["args"]["sort_index"] for e in events if e["name"] == "thread_sort_index"}
    assert orders == {0: 0, 1: 1, 2: 2}
    spans = [event for event in events if event["ph"] == "X"]
    assert [(e["name"], e["cat"], e["ts"], e["dur"], e["tid"]) for e in spans] == [
        ("plan", "stage", 500_000, 2_500_000, 0),
        ("hash", "hash", 1_000_000, 500_000, 1),
        ("read", "read", 2_000_000, 500_000, 2),
    ]
    assert spans[2]["args"] == {"bytes": 7}
    assert len({event["pid"] for event in events}) == 1


def test_without_a_trace_nothing_is_kept(tmp_path: Path) -> None:
    save_large(tmp_path)
    before = threading.active_count()
    with fastload.stream(tmp_path) as stream:
        assert sum(1 for _ in stream) == 16
        job = stream._job
        assert job is None or job.busy.trace is None
    assert threading.active_count() == before


def run_load(*arguments: object) -> subprocess.CompletedProcess[str]:
    return run_fastload(["load", *arguments])


def test_the_command_writes_a_trace(tmp_path: Path) -> None:
    save_large(tmp_path, 4, MIB)
    out = tmp_path / "trace.json"
    assert run_load(tmp_path, "--trace", out).returncode == 0
    names = {event["name"] for event in json.loads(out.read_text())["traceEvents"]}
    assert {"resolve", "plan", "stream", "wait for bytes", "thread_name"} <= names


def test_a_load_that_fails_leaves_its_trace(tmp_path: Path) -> None:
    save_large(tmp_path, 4, 4 * MIB)
    fastload.verify(tmp_path, record=True)
    flip(tmp_path / "model.safetensors", 9 * MIB)
    out = tmp_path / "trace.json"
    assert run_load(tmp_path, "--trace", out, "--reader", "buffered").returncode == 13
    names = {event["name"] for event in json.loads(out.read_text())["traceEvents"]}
    assert "read (buffered)" in names


def test_a_trace_that_cannot_be_written_costs_no_load(tmp_path: Path) -> None:
    save_large(tmp_path, 4, MIB)
    run = run_load(tmp_path, "--trace", tmp_path / "missing" / "trace.json")
    assert run.returncode == 15
    assert "missing" in run.stderr
    assert run.stdout == ""


def test_a_trace_without_a_name_is_refused_as_such(tmp_path: Path) -> None:
    run = run_load(tmp_path, "--trace", "")
    assert run.returncode == 2
    assert "--trace wants a path" in run.stderr
