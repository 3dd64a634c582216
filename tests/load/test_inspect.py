"""``fastload.inspect`` reads headers and nothing else."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save

import fastload
from models import save_sharded
from stored_models import COMMIT, write_cache

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


def test_digests_and_who_says_so(tmp_path: Path) -> None:
    content = save({"a": torch.ones(2)})
    digest = hashlib.sha256(content).hexdigest()
    cache = write_cache(tmp_path / "hub", "org/name", COMMIT, {"model.safetensors": content})
    (shard,) = fastload.inspect(cache).shards
    assert (shard.evidence, shard.digest) == ("sha256", f"sha256:{digest}")
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    (shard,) = fastload.inspect(folder).shards
    assert (shard.evidence, shard.digest) == ("none", None)
    fastload.verify(folder, record=True)
    (shard,) = fastload.inspect(folder).shards
    assert (shard.evidence, shard.digest) == ("manifest (recorded)", f"sha256:{digest}")


def test_torch_is_not_needed(real_model: Path) -> None:
    code = f"import sys, fastload; fastload.inspect({str(real_model)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
