"""What a load takes, what it refuses to take, and what it gives back."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import fastload
from fastload._budget import Headroom
from hand_clock import wait_for_workers
from models import MIB, assert_same, same_bytes, save_large
from writing import entry, shard_bytes

TIB = 1 << 40


@pytest.fixture(autouse=True, scope="module")
def _warmed_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is imported or allocated once, by the first load, is not what a load takes."""
    folder = tmp_path_factory.mktemp("warmed up")
    save_large(folder, 1, MIB)
    for reader in ("auto", "mmap"):
        fastload.load(folder, reader=reader)


def _resident_bytes() -> int:
    """What was allocated; pages of libraries, which come in when code runs for the first time, are not among it."""
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * 4096


def test_model_larger_than_memory_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(shard_bytes({"huge": entry("U8", [TIB], 0, TIB)}))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + TIB)
    before = _resident_bytes()
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(tmp_path)
    assert _resident_bytes() - before < 64 * MIB  # the plan alone, of 131,072 extents, has 22
    assert caught.value.needed_bytes >= TIB
    assert 0 < caught.value.available_bytes < TIB
    assert caught.value.limit
    assert "tensors=" in caught.value.hint
    assert fastload.load(tmp_path, tensors=lambda _: False) == {}


def test_model_larger_than_memory_can_be_streamed(tmp_path: Path) -> None:
    """Sparse, since only the arithmetic matters: many tensors that fit one by one."""
    count, each = 1024, TIB // 1024
    header = {f"t{i}": entry("U8", [each], i * each, (i + 1) * each) for i in range(count)}
    path = tmp_path / "model.safetensors"
    path.write_bytes(shard_bytes(header))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + TIB)
    with fastload.stream(tmp_path) as stream:
        name, tensor = next(stream)
        assert (name, tensor.nbytes) == ("t0", each)


def test_dropping_a_tensor_frees_its_memory(tmp_path: Path) -> None:
    content = save_large(tmp_path, 8, 16 * MIB)
    weights = fastload.load(tmp_path)
    full = _resident_bytes()
    kept = weights.pop("layer.003.weight")
    view = kept[1000:2000]
    del kept
    weights.clear()
    assert full - _resident_bytes() > 7 * 14 * MIB
    assert same_bytes(view, content["layer.003.weight"][1000:2000])


def test_stream_holds_no_whole_shard(tmp_path: Path) -> None:
    script = f"""
import resource, fastload, torch
from pathlib import Path
def now(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
fastload.load({str(tmp_path)!r}, tensors="layer.000.*")
before = now()
most = max(now() for _ in fastload.stream({str(tmp_path)!r}, options=fastload.Options(staging_bytes="64Mi")))
print(most - before)
"""
    save_large(tmp_path, 128, 4 * MIB)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 300 * MIB


@pytest.mark.parametrize("reader", ["buffered", "mmap"])
def test_refused_address_space_is_a_memory_budget_error(tmp_path: Path, reader: str) -> None:
    save_large(tmp_path, 4, 64 * MIB)
    # Else glibc takes 64 MiB of it for each new thread, and now and then the stack of a thread is what is refused.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    script = f"""
import resource, torch, fastload
fastload.load({str(tmp_path)!r}, tensors="layer.000.*", reader={reader!r})
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + (128 << 20), -1))
try:
    fastload.load({str(tmp_path)!r}, reader={reader!r})
except fastload.MemoryBudgetError as error:
    print(f"{{error.needed_bytes >> 20}} {{error.available_bytes >> 20}} {{error.limit}}")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    needed, available, limit = run.stdout.split(" ", 2)
    assert int(needed) >= 64
    assert 0 <= int(available) <= 128
    assert "address space" in limit


def test_staging_is_never_larger_than_the_setting(tmp_path: Path) -> None:
    save_large(tmp_path, 16, 4 * MIB)
    for staging_bytes in (4 * MIB, 12 * MIB, 64 * MIB):
        options = fastload.Options(staging_bytes=staging_bytes)
        report = fastload.load(tmp_path, reader="direct", options=options).report
        assert 0 < report.peak_staging_bytes <= staging_bytes


def test_staging_too_small_for_one_block(tmp_path: Path) -> None:
    save_large(tmp_path, 1, MIB)
    with pytest.raises(fastload.UsageError, match="staging_bytes"):
        fastload.load(tmp_path, options=fastload.Options(staging_bytes="1Mi"))


def test_cast_does_not_hold_both_copies(tmp_path: Path) -> None:
    """F32 to BF16: the peak is the result and a window, not stored plus result."""
    script = f"""
import resource, torch, fastload
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fastload.load({str(tmp_path)!r}, dtype="BF16", options=fastload.Options(staging_bytes="64Mi"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10)
"""
    tensors = {f"t{i}": torch.rand(4 * MIB) for i in range(32)}  # 512 MiB
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "model.safetensors")
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < (256 + 230) * MIB


def _unaligned_shard(path: Path, tensors: int, each: int) -> Path:
    """F64 tensors that begin at an odd byte: valid, since nothing says that a writer must pad its header."""
    header = {f"t{i}": entry("F64", [each // 8], i * each, (i + 1) * each) for i in range(tensors)}
    raw = json.dumps(header, separators=(",", ":")).encode()
    path.write_bytes(shard_bytes(raw + b" " * (-len(raw) % 8 + 1)))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + tensors * each)
    return path


def test_mapped_tensors_that_must_be_copied_are_counted_before_they_are(tmp_path: Path) -> None:
    path = _unaligned_shard(tmp_path / "model.safetensors", 64, TIB // 64)
    before = _resident_bytes()
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(path, reader="mmap")
    assert _resident_bytes() - before < 16 * MIB
    assert caught.value.needed_bytes == TIB
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(path, reader="mmap", dtype="BF16")  # the copy of one tensor is let go before the next one's
    assert caught.value.needed_bytes == TIB // 4 + TIB // 64
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.stream(path, reader="mmap")  # the caller still has one when the next one is made
    assert caught.value.needed_bytes == 2 * TIB // 64


def test_mapped_tensors_that_lie_well_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastload._load.target.mapped_target.host_headroom", lambda: Headroom("a test", 0))
    content = save_large(tmp_path, 2, MIB)  # safetensors pads its headers
    assert_same(fastload.load(tmp_path, reader="mmap"), content)


def test_mapped_blocks_are_digested_by_way_of_few_pages(tmp_path: Path) -> None:
    """Fresh ones for each shard and thread were a fifth of the CPUs' time."""
    script = f"""
import resource, fastload
def count(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for folder in ("small", "large"):
    before = count()
    weights = fastload.load(f"{tmp_path}/{{folder}}", reader="mmap", verify="require")
print(count() - before)
"""
    shards, shard_bytes_each = 24, 4 * MIB
    for folder, nbytes in (("small", MIB), ("large", shard_bytes_each)):
        (tmp_path / folder).mkdir()
        for number in range(shards):
            tensors = {f"t{number}": torch.zeros(nbytes, dtype=torch.uint8)}
            safetensors.torch.save_file(tensors, tmp_path / folder / f"model-{number:02d}.safetensors")
        fastload.verify(tmp_path / folder, record=True)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < shards * shard_bytes_each // resource.getpagesize() // 2


def test_a_stream_that_is_closed_early_gives_back_what_it_had_read(tmp_path: Path) -> None:
    save_large(tmp_path, 32, 8 * MIB)
    before = _resident_bytes()
    stream = fastload.stream(tmp_path, options=fastload.Options(staging_bytes="128Mi"))
    next(stream)
    wait_for_workers()  # which read ahead
    assert _resident_bytes() - before > 64 * MIB
    stream.close()
    assert _resident_bytes() - before < 16 * MIB
    assert stream.report.tensors == 1
