"""Watches for regressions: ``pytest benchmarks/test_bench_load.py``. Claims about speed come from ``side_by_side.py``.

256 MiB from the page cache, in one process: memory that one load frees serves the next, which flatters everybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import fastload
from fastload.ops.bench.checkpoint import list_llama, list_tiny, write_checkpoint
from fastload.ops.bench.contestants import FASTLOAD, find_obstacle, get_ready
from fastload.ops.bench.files import Trial, list_files
from fastload.ops.bench.measure import touch

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

_MODEL_BYTES = 256 << 20  # 256 MiB
_LOADERS = [name for name in (*FASTLOAD, "safetensors", "safetensors-pread") if find_obstacle(name, "cpu") is None]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 256 MiB in two shards."""
    folder = tmp_path_factory.mktemp("llama")
    write_checkpoint(str(folder), list_llama(_MODEL_BYTES), shards=2)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of 8,000 tensors."""
    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint(str(folder), list_tiny(8000), shards=1)
    return folder


@pytest.mark.parametrize("loader", _LOADERS)
@pytest.mark.benchmark(group="load 256 MiB and touch it")
def test_load(benchmark: BenchmarkFixture, llama: Path, loader: str) -> None:
    """Bytes: the larger part of any real load."""
    files = list_files(str(llama))
    load = get_ready(loader, Trial(files))
    touched = benchmark.pedantic(lambda: touch(load(files)), rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert touched == touch(get_ready("safetensors", Trial(files))(files))


@pytest.mark.parametrize("loader", _LOADERS)
@pytest.mark.benchmark(group="load 8,000 tiny tensors")
def test_load_tiny(benchmark: BenchmarkFixture, tiny: Path, loader: str) -> None:
    """Tensors: what each one costs."""
    files = list_files(str(tiny))
    load = get_ready(loader, Trial(files))
    tensors = benchmark.pedantic(load, args=(files,), rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert len(tensors) == 8000


@pytest.mark.benchmark(group="parse a header of 8,000 tensors")
def test_inspect(benchmark: BenchmarkFixture, tiny: Path) -> None:
    """The strict parser."""
    assert len(benchmark(fastload.inspect, tiny).tensors) == 8000


@pytest.mark.benchmark(group="parse a header of 8,000 tensors")
def test_safe_open(benchmark: BenchmarkFixture, tiny: Path) -> None:
    """Its counterpart, in Rust."""
    from safetensors import safe_open

    def parse() -> int:
        with safe_open(tiny / "model.safetensors", framework="pt") as file:
            return len(file.keys())

    assert benchmark(parse) == 8000
