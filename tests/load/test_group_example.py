"""examples/torchrun_tp.py under torchrun itself: each byte is read once, and each rank keeps its part."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from safetensors.torch import save_file

from forked import start_python, wait_for
from models import MIB, random_tensor

EXAMPLE = Path(__file__).parents[2] / "examples" / "torchrun_tp.py"


@pytest.mark.parametrize("size", [2, 3])
def test_the_example_runs_under_torchrun(tmp_path: Path, size: int) -> None:
    tensors = {
        "model.embed_tokens.weight": random_tensor(MIB, 1).view(512, 1024),
        "model.layers.0.self_attn.q_proj.weight": random_tensor(3 * MIB, 2).view(1536, 1024),
        "model.layers.0.mlp.down_proj.weight": random_tensor(3 * MIB, 3).view(1024, 1536),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), str(EXAMPLE), str(tmp_path)]
    done = wait_for(start_python(words, torch=True))
    assert done.returncode == 0, done.stderr
    kept = MIB + 6 * MIB / size
    assert f"3 tensors; rank 0 keeps {kept / 1e6:.1f} MB" in done.stdout
    read = [float(each) for each in re.findall(r"rank \d+: read ([\d.]+) MB", done.stdout)]
    assert len(read) == size
    total = (tmp_path / "model.safetensors").stat().st_size / 1e6
    assert total - 0.2 <= sum(read) <= 1.05 * total
