"""The benchmark as ``make bench`` calls it: on a small checkpoint, by a relative path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_side_by_side_benchmark_measures_a_checkpoint_by_a_relative_path(tmp_path: Path) -> None:
    def run(script: str, *arguments: str) -> None:
        command = [sys.executable, str(_BENCHMARKS / script), *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=240)

    run("make_checkpoint.py", "bench/tiny", "--tiny", "8")
    loaders = ["safetensors", "fastload-auto", "fastload-mmap"]
    run("side_by_side.py", "bench/tiny", "--rounds", "1", "--parts", "cached", "--json", "out.json", "--only", *loaders)
    found = json.loads((tmp_path / "out.json").read_text())
    assert not found["wrong"]
    (table,) = found["tables"]
    assert not table["errors"]
    assert sorted(table["samples"]) == sorted(loaders)
