"""The reports of a snapshot's last loads: kept on the local tier, and compared by the doctor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from fastload import Options
from fastload._store.keep.reports import keep_report, read_reports
from fastload._store.layout import RepoLayout
from fastload.ops.doctor.history import judge_history, parse_past
from stored_models import COMMIT, model_files, write_cache
from warming import Tiers, as_json, tree

if TYPE_CHECKING:
    from pathlib import Path

REPO = "org/name"


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    made = Tiers(tmp_path)
    write_cache(made.shared, REPO, COMMIT, model_files())
    return made


def _report(gb_per_s: float, **more: object) -> dict[str, Any]:
    usual = {"bytes": 10**9, "seconds": 1 / gb_per_s, "device": "cuda:0", "reader": "direct", "bound_by": "read"}
    return {**usual, "finished": "2026-01-01T00:00:00+00:00", **more}


def test_each_finished_load_leaves_one_and_twenty_stay(tiers: Tiers) -> None:
    tiers.warm(REPO)
    options = Options(local=str(tiers.local), tiers="local")
    layout = RepoLayout(str(tiers.repo(REPO)))
    for _ in range(22):
        report = fastload.load(REPO, options=options).report
    kept = read_reports(layout, COMMIT)
    assert len(kept) == 20
    assert kept[-1]["seconds"] == report.seconds
    with fastload.stream(REPO, options=options) as stream:
        next(stream)
    assert read_reports(layout, COMMIT) == kept  # it was left early
    assert [path.name for path in (tiers.repo(REPO) / ".fastload/reports").iterdir()] == [f"{COMMIT}.jsonl"]
    fastload.remove(REPO, options=options)
    assert not tiers.repo(REPO).exists()


def test_nothing_is_kept_on_mounts_and_beside_what_others_brought(tiers: Tiers) -> None:
    write_cache(tiers.local, "org/foreign", COMMIT, model_files())
    before = tree(tiers.shared), tree(tiers.local)
    for name in (REPO, "org/foreign"):
        fastload.load(
            name, options=Options(local=str(tiers.local), shared=str(tiers.shared), write_through="off", verify="off")
        )
    assert tree(tiers.shared) == before[0]
    assert not list(tiers.local.rglob("reports"))


def test_lines_that_are_no_report_are_passed_over(tmp_path: Path) -> None:
    layout = RepoLayout(str(tmp_path))
    (tmp_path / ".fastload" / "reports").mkdir(parents=True)
    (tmp_path / ".fastload" / "reports" / "c.jsonl").write_bytes(b'\xff\n[1]\n{"bytes": 5}\n' + b"[" * 100000 + b"\n")
    assert read_reports(layout, "c") == [{"bytes": 5}]
    keep_report(layout, "c", {"bytes": 6})
    assert read_reports(layout, "c") == [{"bytes": 5}, {"bytes": 6}]
    assert parse_past([{"bytes": 5}, {"bytes": "x", "seconds": 1}, {"bytes": 1, "seconds": 0}]) == ()


def test_a_slow_load_is_told_beside_the_usual_ones() -> None:
    past = parse_past([*map(_report, (3.0, 3.2, 3.1)), _report(9.0, device="cpu"), _report(0.21)])
    (finding,) = judge_history("llama-70b", past)
    assert finding.severity == "warning"
    assert finding.what == "the last load of llama-70b to cuda made 0.21 GB/s, last time 3.1, usually 3.1"
    assert "bound by read (direct)" in finding.why
    assert list(judge_history("m", parse_past([_report(3.0), _report(2.0)]))) == []
    assert list(judge_history("m", parse_past([_report(0.1)]))) == []
    assert list(judge_history("m", parse_past([_report(9.0, device="cpu"), _report(3.0)]))) == []
    assert list(judge_history("m", ())) == []


def test_mended_blocks_are_told() -> None:
    (finding,) = judge_history("m", parse_past([_report(3.0, blocks_repaired=2)]))
    assert finding.what == "the last load of m had 2 blocks mended"


def test_the_doctor_shows_and_compares_them(tiers: Tiers) -> None:
    tiers.warm(REPO)
    for _ in range(2):
        assert tiers.run("load", REPO, "--no-progress").returncode == 0
    path = tiers.repo(REPO) / ".fastload" / "reports" / f"{COMMIT}.jsonl"
    first, last = map(json.loads, path.read_text().splitlines())
    last["seconds"] = first["seconds"] * 100
    path.write_text(json.dumps(first) + "\n" + json.dumps(last) + "\n")
    facts = as_json(tiers.run("doctor", REPO, "--json"))
    assert [load["device"] for load in facts["way"]["past"]] == ["cpu", "cpu"]
    assert any("last time" in finding["what"] for finding in facts["findings"])
    assert tiers.run("doctor", REPO).stdout.count("GB/s to cpu in") == 2


def test_the_doctor_says_why_there_is_nothing_to_compare(tiers: Tiers) -> None:
    """A read-only mount is in tests/k8s, where a serving pod has one."""
    shared = tiers.run("doctor", REPO).stdout
    assert "loads" in shared and "leave nothing to compare: reports are kept on the local tier alone" in shared
    write_cache(tiers.local, "org/foreign", COMMIT, model_files())
    facts = as_json(tiers.run("doctor", "org/foreign", "--json"))
    assert facts["way"]["past_reason"].endswith("org--foreign/.fastload cannot be written here")
    tiers.warm(REPO)
    assert as_json(tiers.run("doctor", REPO, "--json"))["way"]["past_reason"] == ""
