"""Checkpoints for the tests of loading, written by safetensors itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from writing import write_index

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1 << 20


def random_tensor(nbytes: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Random bytes as ``dtype``, of shape [nbytes / itemsize]."""
    # Drawn eight at a time: one by one takes ten times as long.
    words = torch.empty(-(-nbytes // 8), dtype=torch.int64)
    words.random_(-(1 << 63), None, generator=torch.Generator().manual_seed(seed))
    return words.view(torch.uint8)[:nbytes].clone().view(dtype)


def save_sharded(folder: Path, shards: Mapping[str, Mapping[str, torch.Tensor]], *, index: bool = True) -> Path:
    """``{file: {name: tensor}}`` in ``folder``, with an index."""
    for file, tensors in shards.items():
        save_file(dict(tensors), folder / file)
    if index:
        write_index(folder, {name: file for file, tensors in shards.items() for name in tensors})
    return folder


def save_large(folder: Path, tensors: int = 16, tensor_bytes: int = 4 * MIB) -> dict[str, torch.Tensor]:
    """One shard of equal tensors in ``folder``; what is in it, in the order of the file."""
    content = {f"layer.{i:03}.weight": random_tensor(tensor_bytes, i) for i in range(tensors)}
    save_file(content, folder / "model.safetensors")
    return content


def same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal dtype, shape and bytes; NaNs included."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    flat = [t.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
    return torch.equal(*flat)


def assert_same(loaded: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """The same names and, under each, the same tensor."""
    assert loaded.keys() == expected.keys()
    different = [name for name in expected if not same_bytes(loaded[name], expected[name])]
    assert not different
