"""Modules without memory: the cure that the error names is all of it, so that who follows it has the right weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fastload

if TYPE_CHECKING:
    from pathlib import Path


class Rotary(nn.Module):
    """A tied matrix, and a buffer that no checkpoint holds: what most language models have."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 4)
        self.lm_head = nn.Linear(4, 50, bias=False)
        self.register_buffer("inv_freq", torch.arange(4.0), persistent=False)
        self.tie()

    def tie(self) -> None:
        self.lm_head.weight = self.embed.weight


def _error_of(module: nn.Module, folder: Path) -> str:
    with pytest.raises(fastload.UsageError, match="to_empty") as caught:
        fastload.load_into(module, folder)
    return str(caught.value)


def test_the_cure_says_what_it_parts_and_what_it_does_not_fill(tmp_path: Path) -> None:
    """``to_empty`` makes a parameter for each name; with ``strict=False`` a head of garbage passed for loaded."""
    stored = {"embed.weight": torch.randn(50, 4)}
    save_file(stored, tmp_path / "model.safetensors")
    with torch.device("meta"):
        module = Rotary()
    text = _error_of(module, tmp_path)
    assert "parts 'lm_head.weight' from 'embed.weight'" in text
    assert "'inv_freq'" in text
    module.to_empty(device="cpu")
    module.tie()
    module.inv_freq = torch.arange(4.0)
    fastload.load_into(module, tmp_path)
    assert torch.equal(module.lm_head.weight, stored["embed.weight"])


def test_where_it_parts_nothing_and_all_is_stored_it_says_no_more(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(3, 3), "bias": torch.ones(3)}, tmp_path / "model.safetensors")
    text = _error_of(nn.Linear(3, 3, device="meta"), tmp_path)
    assert "parts" not in text
    assert "compute" not in text


def test_what_has_memory_beside_what_has_none_loses_its_content_too(tmp_path: Path) -> None:
    save_file({"embed.weight": torch.randn(50, 4)}, tmp_path / "model.safetensors")
    module = Rotary()
    module.register_parameter("adapter", nn.Parameter(torch.empty(2, device="meta")))
    text = _error_of(module, tmp_path)
    assert "1 of 3 parameters have no memory, 'adapter' for one" in text
    assert "'inv_freq'" in text
