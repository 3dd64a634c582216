"""``fastload bench``'s verdict on a volume."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import yaml

from fastload.ops.bench.chart import draw_chart
from fastload.ops.bench.measure import Sample
from fastload.ops.bench.page_cache import UNTOLD
from fastload.ops.bench.tables import Table
from fastload.ops.bench.verdict import judge_volume
from forked import run_fastload

if TYPE_CHECKING:
    from pathlib import Path


def _table(state: str = "cold", **gb_per_s: float) -> Table:
    table = Table(state, state)
    for row, speed in gb_per_s.items():
        sample = Sample(
            contestant=row,
            seconds=1 / speed,
            load_s=1 / speed,
            touch_s=0.0,
            cpu_s=1.0,
            nbytes=10**9,
            peak_rss_bytes=0,
            start_rss_bytes=0,
            touched_sum=0,
            note="",
            evidence="",
        )
        table.samples[row.replace("_", "-")] = [sample]
    return table


@pytest.mark.parametrize(
    ("speed", "file_system", "design"),
    [
        (3.0, "nfs4", "rwx-pvc"),
        (1.0, "nfs4", "hybrid"),
        (5.0, "fuse.s3fs", "rwx-pvc"),
        (3.0, "ext4", "hybrid, local-pv, hostpath"),
        (0.25, "xfs", "rwo-pvc"),
    ],
)
def test_which_design_a_volume_fits(speed: float, file_system: str, design: str) -> None:
    verdict = judge_volume([_table(read_direct=speed)], file_system)
    assert verdict is not None
    assert verdict.design == design


def test_times_and_probe_follow_from_the_speed() -> None:
    verdict = judge_volume(
        [_table(fastload_auto=2.0, read_direct=3.0, runai=9.0), _table("cached", read_direct=90.0)], "xfs"
    )
    assert verdict is not None
    assert verdict.row == "fastload-auto"
    assert verdict.bytes_per_s == pytest.approx(2e9)
    assert [start.seconds for start in verdict.starts] == pytest.approx([8.0, 70.5, 405.0])
    probe = verdict.probe
    assert yaml.safe_load(verdict.probe_text) == {"startupProbe": probe}
    assert probe["httpGet"] == {"path": "/health", "port": "http"}
    allowed_s = probe["periodSeconds"] * probe["failureThreshold"]
    assert 3 * 70.5 + 180 <= allowed_s < 3 * 70.5 + 190


def test_where_cold_is_not_proven_only_what_reads_past_the_cache_counts() -> None:
    table = _table(fastload_auto=20.0, read_buffered=30.0, read_direct=1.5)
    table.method = f"posix_fadvise(DONTNEED), {UNTOLD}"
    verdict = judge_volume([table], "ext4")
    assert verdict is not None
    assert verdict.row == "read-direct"
    assert verdict.bytes_per_s == pytest.approx(1.5e9)


def test_without_a_cold_number_there_is_none() -> None:
    assert judge_volume([_table("cached", read_direct=90.0)], "ext4") is None
    assert judge_volume([_table(runai=3.0)], "ext4") is None
    assert judge_volume([_table(read_direct=3.0)], "tmpfs") is None
    assert judge_volume([], "ext4") is None


def test_text_json_and_chart_have_it(tmp_path: Path) -> None:
    chart = tmp_path / "chart.svg"
    flags = ["--size", "4Mi", "--rounds", "1", "--only", "read-buffered", "--states", "cold", "--chart", str(chart)]
    command = ["bench", str(tmp_path), *flags]
    run = run_fastload(command)
    run.check_returncode()
    text = run.stdout
    if "skipped" in text:
        pytest.skip(f"no cold state here: {text}")
    assert "verdict: " in text and "startupProbe:" in text
    assert "GB/s cold" in chart.read_text()
    done = run_fastload([*command, "--json", "--chart", "-"])
    done.check_returncode()
    found = json.loads(done.stdout)
    assert [start["model"] for start in found["verdict"]["starts"]] == ["8B", "70B", "405B"]
    assert found["verdict"]["probe"]["failureThreshold"] == found["verdict"]["starts"][1]["failure_threshold"]
    assert "verdict: " in done.stderr and "startupProbe:" in done.stderr  # for who reads the log
    assert ET.fromstring(done.stderr[done.stderr.index("<svg") :]).tag.endswith("svg")  # noqa: S314 - our own drawing
    held = run_fastload([*command, "--json", "--max-rate", "50Mi"])
    held.check_returncode()
    assert json.loads(held.stdout)["verdict"] is None
    assert "GB/s cold" not in draw_chart([_table(read_direct=1.0)])
