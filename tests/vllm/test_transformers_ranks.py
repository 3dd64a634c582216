"""Models that transformers deals out over ranks, by its own plans: each gets its part, and each byte is read once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import fastload

SIZE = 2
SCRIPT = Path(__file__).parent / "transformers_ranks.py"


def test_tensor_and_pipeline_parallel_llamas(llama: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(SIZE)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(SCRIPT), str(llama)], capture_output=True, text=True, env=environ, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(ranks) == SIZE
    names = len(fastload.inspect(llama).tensors)
    for rank in ranks:
        tensor, pipeline = rank["tensor"], rank["pipeline"]
        # Of each layer what the plan of a Llama names, and its head; in transformers 5.24 the embedding, too.
        assert tensor["dealt out"] == 4 * 7 + 1 + tensor["plan is found before"]
        assert (tensor["filled wrong"], tensor["loaded wrong"], tensor["says the same"]) == ([], [], True)
        assert (pipeline["filled wrong"], pipeline["loaded wrong"], pipeline["loaded besides"]) == ([], [], [])
        assert 0 < pipeline["has"] < names
    assert sum(rank["pipeline"]["has"] for rank in ranks) == names
    stored = sum(path.stat().st_size for path in llama.glob("*.safetensors"))
    for way in ("tensor", "pipeline"):
        assert sum(rank[way]["read"] for rank in ranks) <= 1.05 * stored
