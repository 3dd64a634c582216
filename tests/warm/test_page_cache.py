"""What passes through ``warm`` pushes nothing out of the page cache: asked of the kernel by cachestat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fastload
from fastload import Options
from fastload._read.dropping import DroppingReader
from fastload._read.file import identify
from fastload._read.pread import BufferedReader
from fastload._read.reader import PlainFile
from fastload.ops.bench.page_cache import PageCacheError, evict, fill, measure_residency
from stored_models import COMMIT, write_cache
from warming import MIB, large_shard

SIZE = 24 * MIB
SHARD = "model.safetensors"


@pytest.fixture
def shard(tmp_path: Path) -> str:
    """On a mount, on disk, and not in the page cache."""
    snapshot = write_cache(tmp_path / "shared", "org/name", COMMIT, {SHARD: large_shard(SIZE, 0), "config.json": b"{}"})
    path = os.path.realpath(snapshot / SHARD)
    try:
        evict([path], may_drop_all=False)
    except PageCacheError as exc:
        pytest.skip(f"not on this file system: {exc}")
    return path


def warm(tmp_path: Path) -> Path:
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers="local,shared")
    return Path(fastload.warm("org/name", options=options).path)


def test_a_cold_source_is_cold_afterwards(tmp_path: Path, shard: str) -> None:
    brought = warm(tmp_path)
    assert (brought / SHARD).stat().st_size == os.path.getsize(shard)
    assert measure_residency([shard]) < 0.05  # the header, read ahead


def test_what_others_have_there_stays(tmp_path: Path, shard: str) -> None:
    fill([shard])
    warm(tmp_path)
    assert measure_residency([shard]) == 1.0


def test_where_the_cache_cannot_be_passed_by_it_is_left_as_it_was(shard: str) -> None:
    file = PlainFile(shard, identify(os.stat(shard)))
    reader = DroppingReader(BufferedReader(file), file)
    read = bytearray(os.path.getsize(shard))
    for offset in range(0, len(read), MIB):
        reader.read_into(offset, [memoryview(read)[offset : offset + MIB]])
    reader.close()
    assert measure_residency([shard]) < 0.2  # what was read ahead of the last read
    assert read == Path(shard).read_bytes()
