"""Names in ``tensors=`` and ``shard=``: a list of many is looked up, and means no other than it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import Replicate

import fastload
from fastload._format.dtype import DTYPES
from fastload._format.header import TensorInfo
from fastload._group.process_group import Position
from fastload._load.request.shard import choose_parts

if TYPE_CHECKING:
    from pathlib import Path

EXPERTS = [f"layers.{layer}.experts.{expert}.{part}" for layer in range(20) for expert in range(200) for part in "ab"]
"""8,000 names."""


def save_empty(folder: Path, names: list[str]) -> Path:
    save_file({name: torch.empty(0) for name in names}, folder / "model.safetensors")
    return folder


def test_a_list_of_thousands_of_names_takes_no_longer_than_to_look_them_up(tmp_path: Path) -> None:
    """As who has a part of the experts asks for them: compared each with each, they took ten seconds."""
    save_empty(tmp_path, EXPERTS)
    started = time.process_time()
    weights = fastload.load(tmp_path, tensors=EXPERTS[:3999:-1])
    assert time.process_time() - started < 2
    assert weights.keys() == set(EXPERTS[4000:])


def test_names_and_globs_together(tmp_path: Path) -> None:
    save_empty(tmp_path, ["a", "b.1", "b.2", "[c]", "d]"])
    assert set(fastload.load(tmp_path, tensors=["a", "b.*", "d]", "[[]c]"])) == {"a", "b.1", "b.2", "[c]", "d]"}
    assert set(fastload.load(tmp_path, tensors=["a"])) == {"a"}


@pytest.mark.parametrize("tensors", [["a", "A"], ["a.*", "a"], ["a", "[c"], ["a", "a?"]])
def test_each_name_and_each_glob_must_match(tmp_path: Path, tensors: list[str]) -> None:
    save_empty(tmp_path, ["a", "b.1"])
    with pytest.raises(fastload.UsageError, match="matches none of 2 tensors"):
        fastload.load(tmp_path, tensors=tensors)


def test_a_name_that_only_the_module_has_is_left_out_by_a_list_without_it(tmp_path: Path) -> None:
    save_empty(tmp_path, ["a", "b"])
    module = torch.nn.Module()
    for name in ("a", "b", "only_here"):
        module.register_buffer(name, torch.empty(0))
    assert fastload.load_into(module, tmp_path, tensors=["a", "b"]).bytes == 0
    with pytest.raises(fastload.UsageError, match="missing: 'only_here'"):
        fastload.load_into(module, tmp_path, tensors=["a", "b", "*"])


def test_placements_of_thousands_of_names_are_looked_up() -> None:
    """A tensor without a placement, as norms are in a model that is divided, was compared with each name."""
    infos = [TensorInfo(name, DTYPES["F32"], (0,), 0, 0) for name in EXPERTS]
    placements = dict.fromkeys(EXPERTS[::2], Replicate())
    started = time.process_time()
    choose_parts(placements, infos, Position(0, 2))
    assert time.process_time() - started < 1
