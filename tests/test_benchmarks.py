"""The benchmark as ``make bench`` calls it: on a small checkpoint, by a relative path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ONCE = ("--rounds", "1", "--discard", "0")
"""Each load is a process that imports torch: seconds, and nothing here is about speed."""
_BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(script: str, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, str(_BENCHMARKS / script), *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=240).stdout


def test_the_side_by_side_benchmark_measures_a_checkpoint_by_a_relative_path(tmp_path: Path) -> None:
    run("make_checkpoint.py", "bench/tiny", "--tiny", "8", cwd=tmp_path)
    loaders = ["safetensors", "fastload-auto", "fastload-mmap"]
    options = [*ONCE, "--parts", "cached", "--json", "out.json"]
    run("side_by_side.py", "bench/tiny", *options, "--only", *loaders, cwd=tmp_path)
    found = json.loads((tmp_path / "out.json").read_text())
    assert not found["wrong"]
    (table,) = found["tables"]
    assert not table["errors"]
    assert {loader: len(samples) for loader, samples in table["samples"].items()} == dict.fromkeys(loaders, 1)


def test_flips_are_made_and_found(tmp_path: Path) -> None:
    assert "\nseed 3, 8 flips and as many clean loads" in run("flips.py", "--flips", "8", "--seed", "3", cwd=tmp_path)


def test_the_cost_of_proving_has_a_row_per_kind_of_evidence(tmp_path: Path) -> None:
    run("make_checkpoint.py", "bench/tiny", "--tiny", "8", cwd=tmp_path)
    said = run("verify_cost.py", "bench/tiny", *ONCE, "--parts", "cached", "--json", "out.json", cwd=tmp_path)
    assert "WRONG" not in said
    (table,) = json.loads((tmp_path / "out.json").read_text())["tables"]
    assert not table["errors"]
    proven = {name: samples[0]["evidence"] for name, samples in table["samples"].items()}
    assert proven == {
        "off": "none",
        "off-mmap": "none",
        "off-hub": "none",
        "loop": "",
        "manifest": "manifest",
        "manifest-mmap": "manifest",
        "recorded": "manifest (recorded)",
        "signature": "signature",
        "signature-kept": "signature",
        "sha256": "sha256",
        "git-sha1": "git-sha1",
        "etag": "etag",
        "listing": "listing",
    }
