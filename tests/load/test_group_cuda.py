"""Groups whose backend is NCCL, onto a CUDA device. `make test-gpu` runs these; without a device they skip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.distributed as dist

import fastload
import ranks
from models import MIB, save_large
from rank_workers import workers_of
from ranks import fingerprints

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or not dist.is_nccl_available(), reason="no CUDA device, or no NCCL, here"
    ),
]


def test_ranks_of_an_nccl_group_load_without_a_collective(tmp_path: Path) -> None:
    """Both on one device, for which NCCL makes no communicator; it would be asked for one by the first collective."""
    save_large(tmp_path, 16, 4 * MIB)
    with workers_of(2) as workers:
        loaded = workers.call(ranks.load_in_an_nccl_group, str(tmp_path))
    assert [got for got, _ in loaded] == [fingerprints(fastload.load(tmp_path))] * 2
    assert all(report.device == "cuda:0" for _, report in loaded)
    total = (tmp_path / "model.safetensors").stat().st_size
    assert sum(report.bytes_read for _, report in loaded) <= 1.05 * total
