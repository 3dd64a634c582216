"""``fastload.inspect`` reads headers and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

import fastload
from models import save_sharded

if TYPE_CHECKING:
    from pathlib import Path


def test_real_model_as_safetensors_sees_it(real_model: Path) -> None:
    found = fastload.inspect(real_model)
    with safe_open(real_model / "model.safetensors", "pt") as file:
        assert set(found.tensors) == set(file.keys())
        assert found.metadata == file.metadata()
        for name, facts in found.tensors.items():
            piece = file.get_slice(name)
            assert (facts.dtype, list(facts.shape)) == (piece.get_dtype(), piece.get_shape())
    assert found.nbytes == sum(facts.nbytes for facts in found.tensors.values())
    json.dumps(found.to_dict())


def test_shards(tmp_path: Path) -> None:
    save_sharded(tmp_path, {"model-1.safetensors": {"a": torch.ones(2)}, "model-2.safetensors": {"b": torch.ones(3)}})
    found = fastload.inspect(tmp_path)
    assert [(shard.name, shard.tensors) for shard in found.shards] == [
        ("model-1.safetensors", 1),
        ("model-2.safetensors", 1),
    ]
    assert found.tensors["b"].shard == "model-2.safetensors"


def test_torch_is_not_needed(real_model: Path) -> None:
    code = f"import sys, fastload; fastload.inspect({str(real_model)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
