"""Loading to a CUDA device. `make test-gpu` runs these; without a device they skip and say so."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import fastload
from models import MIB, assert_same, random_tensor, save_large, save_sharded

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.mark.parametrize("reader", ["auto", "direct", "buffered"])
def test_real_weights_arrive_exactly(real_model: Path, reader: str) -> None:
    weights = fastload.load(real_model, device="cuda", reader=reader)
    assert all(tensor.is_cuda for tensor in weights.values())
    assert_same(weights, load_file(real_model / "model.safetensors"))
    assert weights.report.device == f"cuda:{torch.cuda.current_device()}"


def test_tensors_of_all_sizes_and_alignments(tmp_path: Path) -> None:
    sizes = [1, 3, 255, 257, 4097, MIB - 1, MIB, MIB + 1, 5 * MIB + 3, 70 * MIB + 1]
    content = {f"t{i:02}": random_tensor(size, i, torch.uint8) for i, size in enumerate(sizes)}
    save_file(content, tmp_path / "model.safetensors")
    weights = fastload.load(tmp_path, device="cuda")
    assert_same(weights, content)
    assert all(tensor.data_ptr() % 16 == 0 for tensor in weights.values())
    for name, tensor in weights.items():
        if tensor.nbytes >= MIB:
            assert tensor.untyped_storage().nbytes() == tensor.nbytes, name


def test_stream_while_the_caller_computes(tmp_path: Path) -> None:
    """Tensors are used at once on the caller's stream and dropped: their memory must not be filled again too early."""
    content = save_large(tmp_path, 64, 4 * MIB)
    options = fastload.Options(staging_bytes=32 * MIB)
    sums = {
        name: tensor.view(torch.uint8).long().sum()
        for name, tensor in fastload.stream(tmp_path, device="cuda", options=options)
    }
    assert all(int(sums[name]) == int(tensor.view(torch.uint8).long().sum()) for name, tensor in content.items())


def test_load_on_another_stream(tmp_path: Path) -> None:
    content = save_large(tmp_path, 8, 4 * MIB)
    with torch.cuda.stream(torch.cuda.Stream()):
        weights = fastload.load(tmp_path, device="cuda")
    assert_same(weights, content)


def test_load_into_a_module_on_the_device(tmp_path: Path) -> None:
    source = nn.Sequential(nn.Linear(2048, 1024), nn.BatchNorm1d(1024), nn.Linear(1024, 3))
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    module = nn.Sequential(nn.Linear(2048, 1024), nn.BatchNorm1d(1024), nn.Linear(1024, 3)).cuda()
    places = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    fastload.load_into(module, tmp_path)
    assert_same(module.state_dict(), source.state_dict())
    assert places == {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}


def test_cast_on_the_device(tmp_path: Path) -> None:
    content = {"a": torch.randn(1000, 1000), "b": torch.arange(5)}
    save_file(content, tmp_path / "model.safetensors")
    weights = fastload.load(tmp_path, device="cuda", dtype="BF16")
    assert_same(weights, {"a": content["a"].to(torch.bfloat16), "b": content["b"]})


def test_device_budget_is_kept(tmp_path: Path) -> None:
    save_large(tmp_path, 8, 16 * MIB)
    with pytest.raises(fastload.MemoryBudgetError, match="device_bytes"):
        fastload.load(tmp_path, device="cuda", options=fastload.Options(device_bytes="100Mi"))
    for _ in fastload.stream(
        tmp_path, device="cuda", options=fastload.Options(device_bytes="200Mi", staging_bytes="32Mi")
    ):
        pass


def test_nothing_is_left_on_the_device(tmp_path: Path) -> None:
    save_sharded(tmp_path, {f"s{i}.safetensors": {f"t{i}": random_tensor(8 * MIB, i)} for i in range(4)})
    before = torch.cuda.memory_allocated()
    weights = fastload.load(tmp_path, device="cuda")
    assert torch.cuda.memory_allocated() - before < sum(t.nbytes for t in weights.values()) + 4096
    weights.clear()
    assert torch.cuda.memory_allocated() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastload")]


def test_closing_a_stream_early_leaves_nothing(tmp_path: Path) -> None:
    save_large(tmp_path, 32, 8 * MIB)
    before = torch.cuda.memory_allocated()
    with fastload.stream(tmp_path, device="cuda", options=fastload.Options(staging_bytes="32Mi")) as stream:
        next(stream)
    assert torch.cuda.memory_allocated() == before


def test_mmap_serves_no_device(real_model: Path) -> None:
    with pytest.raises(fastload.UnsupportedError, match="cpu"):
        fastload.load(real_model, device="cuda", reader="mmap")
