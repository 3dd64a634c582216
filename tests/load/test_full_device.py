"""What is made of tensors that were read may find no room, as on a device whose memory is in pieces by then.

The device is the CPU here, which answers as CUDA's allocator does.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import Shard

import fastload

if TYPE_CHECKING:
    from pathlib import Path


class Columns:
    """As much of a DTensor as says that the left half is here."""

    def __init__(self) -> None:
        self.placements = (Shard(1),)
        self.device_mesh = self

    def get_coordinate(self) -> list[int]:
        return [0]

    def size(self, dim: int) -> int:
        return 2


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    save_file({"weight": torch.arange(32.0).view(4, 8)}, tmp_path / "model.safetensors")
    answers = {
        "mem_get_info": lambda _: (30, 0),
        "memory_reserved": lambda _: 25,
        "memory_allocated": lambda _: 20,
        "get_device_properties": lambda _: SimpleNamespace(is_integrated=False),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return tmp_path


def refuse(*_: object, **__: object) -> NoReturn:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


def test_a_part_that_is_cut_out_finds_no_room(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "clone", refuse)
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(model, shard={"weight": Columns()})
    assert caught.value.available_bytes == 35


def test_a_parameter_that_is_cast_to_finds_no_room(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two devices torch makes a copy first."""
    module = nn.Linear(8, 4, bias=False, dtype=torch.bfloat16)
    monkeypatch.setattr(torch.Tensor, "copy_", refuse)
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load_into(module, model)
    assert caught.value.available_bytes == 35
    assert "The module's content is undefined now" in caught.value.hint
