"""Loading to a CUDA device. `make test-gpu` runs these; without a device they skip and say so."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import fastload
from models import MIB, assert_same, random_tensor, save_large, save_sharded
from writing import pack

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


def test_a_stream_goes_on_in_a_thread_that_never_was_on_the_device(tmp_path: Path) -> None:
    """No context is current there, which the driver's own calls need."""
    content = save_large(tmp_path, 16, 4 * MIB)
    with fastload.stream(tmp_path, device="cuda", options=fastload.Options(staging_bytes=32 * MIB)) as stream:
        taken = dict([next(stream)])
        with ThreadPoolExecutor(1) as other:
            taken |= other.submit(dict, stream).result()
    assert_same(taken, content)


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


_FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz")


def test_every_dtype_that_safetensors_knows(tmp_path: Path) -> None:
    """By odd numbers of bytes before each, so that none lies aligned in the file."""
    names = ("uint8", "int8", *_FLOAT8, "int16", "uint16", "float16", "bfloat16", "int32", "uint32", "float32")
    dtypes = [getattr(torch, name) for name in (*names, "int64", "uint64", "float64", "complex64")]
    content = {str(dtype): random_tensor(48 * 1001, seed, torch.uint8).view(dtype) for seed, dtype in enumerate(dtypes)}
    content |= {"bool": torch.tensor([True, False, True]), "scalar": torch.tensor(2.5), "empty": torch.empty(3, 0)}
    save_file(content, tmp_path / "model.safetensors")
    weights = fastload.load(tmp_path, device="cuda")
    assert_same(weights, load_file(tmp_path / "model.safetensors"))
    assert_same(dict(fastload.stream(tmp_path, device="cuda")), content)


def test_packed_dtypes_are_what_they_are_on_the_cpu(tmp_path: Path) -> None:
    data = bytes(range(24))
    tensors = {
        "byte": ("U8", [1], b"a"),
        "f4": ("F4", [4, 12], data),
        "odd": ("F4", [16, 3], data),
        "f6": ("F6_E2M3", [4, 8], data),
        "f8": ("F8_E4M3", [2, 12], data),
    }
    (tmp_path / "model.safetensors").write_bytes(pack(tensors))
    weights, expected = fastload.load(tmp_path, device="cuda"), fastload.load(tmp_path)
    assert [(n, t.dtype, t.shape) for n, t in weights.items()] == [(n, t.dtype, t.shape) for n, t in expected.items()]
    raw = {name: tensor.flatten().view(torch.uint8).cpu() for name, tensor in weights.items()}
    assert all(bytes(raw[name].tolist()) == content for name, (_, _, content) in tensors.items())


def test_load_into_casts_to_what_the_parameters_are(tmp_path: Path) -> None:
    source = nn.Linear(512, 300)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    module = nn.Linear(512, 300, device="cuda", dtype=torch.bfloat16)
    fastload.load_into(module, tmp_path)
    assert_same(module.state_dict(), {name: t.to(torch.bfloat16) for name, t in source.state_dict().items()})


def test_cast_on_the_device(tmp_path: Path) -> None:
    content = {"a": torch.randn(1000, 1000), "b": torch.arange(5)}
    save_file(content, tmp_path / "model.safetensors")
    weights = fastload.load(tmp_path, device="cuda", dtype="BF16")
    assert_same(weights, {"a": content["a"].to(torch.bfloat16), "b": content["b"]})


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device here")
def test_cast_on_another_device_than_the_current_one(tmp_path: Path) -> None:
    """The caller's own stream is the default one there, which the driver tells by what is current on the thread."""
    content = {f"t{i}": torch.randn(1000, 1000) for i in range(24)}
    save_file(content, tmp_path / "model.safetensors")
    other = (torch.cuda.current_device() + 1) % torch.cuda.device_count()
    weights = fastload.load(tmp_path, device=f"cuda:{other}", dtype="BF16")
    assert_same(weights, {name: tensor.to(torch.bfloat16) for name, tensor in content.items()})
    assert torch.cuda.current_device() != other


def test_device_budget_is_kept(tmp_path: Path) -> None:
    save_large(tmp_path, 8, 16 * MIB)
    with pytest.raises(fastload.MemoryBudgetError, match="device_bytes"):
        fastload.load(tmp_path, device="cuda", options=fastload.Options(device_bytes="100Mi"))
    for _ in fastload.stream(
        tmp_path, device="cuda", options=fastload.Options(device_bytes="200Mi", staging_bytes="32Mi")
    ):
        pass


def requested_bytes(when: str = "current") -> int:
    """What was asked of torch's allocator and not given back, of this process; it rounds up, by what lies around."""
    return int(torch.cuda.memory_stats()[f"requested_bytes.all.{when}"])


def threads() -> list[str]:
    """The threads of loads. The kernels of an earlier test may still be being compiled."""
    ours = [thread.name for thread in threading.enumerate() if thread.name.startswith("fastload")]
    return [name for name in ours if not name.startswith("fastload-gpu-digest")]


def test_nothing_is_left_on_the_device(tmp_path: Path) -> None:
    save_sharded(tmp_path, {f"s{i}.safetensors": {f"t{i}": random_tensor(8 * MIB, i)} for i in range(4)})
    gc.collect()
    before = requested_bytes()
    weights = fastload.load(tmp_path, device="cuda")
    assert requested_bytes() - before == sum(t.nbytes for t in weights.values())
    weights.clear()
    assert requested_bytes() == before
    assert not threads()


@pytest.mark.parametrize("dtype", [None, "F16"])
def test_a_load_takes_the_weights_and_its_staging_at_most(tmp_path: Path, dtype: str | None) -> None:
    content = save_large(tmp_path, 24, 8 * MIB)
    gc.collect()
    before = requested_bytes()
    torch.cuda.reset_peak_memory_stats()
    weights = fastload.load(tmp_path, device="cuda", dtype=dtype, options=fastload.Options(staging_bytes="64Mi"))
    peak_bytes = requested_bytes("peak") - before
    assert 0 < weights.report.peak_staging_bytes <= 64 * MIB
    # A lane has two slots on the host and one on the device; what is cast was there as it is stored, a window of it.
    window_bytes = 0 if dtype is None else 64 * MIB + 2 * 8 * MIB
    assert peak_bytes <= 24 * 8 * MIB + 32 * MIB + window_bytes + MIB
    if dtype is None:
        assert_same(weights, content)


def test_a_stream_takes_a_window_and_its_staging_at_most(tmp_path: Path) -> None:
    save_large(tmp_path, 32, 8 * MIB)
    gc.collect()
    before = requested_bytes()
    torch.cuda.reset_peak_memory_stats()
    for _ in fastload.stream(tmp_path, device="cuda", options=fastload.Options(staging_bytes="32Mi")):
        pass
    assert requested_bytes("peak") - before <= 32 * MIB + 3 * 8 * MIB + 16 * MIB + MIB


def test_closing_a_stream_early_leaves_nothing(tmp_path: Path) -> None:
    save_large(tmp_path, 32, 8 * MIB)
    gc.collect()
    before = requested_bytes()
    with fastload.stream(tmp_path, device="cuda", options=fastload.Options(staging_bytes="32Mi")) as stream:
        next(stream)
    assert requested_bytes() == before
    assert not threads()


def test_mmap_serves_no_device(tmp_path: Path) -> None:
    save_large(tmp_path, 1, MIB)
    with pytest.raises(fastload.UnsupportedError, match="cpu"):
        fastload.load(tmp_path, device="cuda", reader="mmap")
