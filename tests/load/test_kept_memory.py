"""What stays of a load of which some tensors are cast or cut is counted before anything is allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import Shard

import fastload
from fastload._budget import Headroom
from models import MIB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPTIONS = fastload.Options(staging_bytes=4 * MIB)
PASSING = (4 + 4) * MIB
"""The window and the slot; besides there are the tensor that is being read and the one that was taken."""


class _Mesh:
    """As much of a DeviceMesh as says where this process is in it."""

    def get_coordinate(self) -> list[int]:
        return [0]

    def size(self, _dim: int) -> int:
        return 2


class Halved:
    """As much of a DTensor as says which part of it is here: the left half."""

    placements = (Shard(1),)
    device_mesh = _Mesh()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def set_limit(nbytes: int) -> None:
        for where in ("prepare.found", "target.host_target", "target.mapped_target"):
            monkeypatch.setattr(f"fastload._load.{where}.host_headroom", lambda: Headroom("a test", nbytes))

    return set_limit


def save_matrices(folder: Path, dtype: torch.dtype) -> None:
    """32 of them, of 2 MiB; the first one is F32."""
    width = 2 * MIB // dtype.itemsize // 1024
    content = {f"w{i:02}": torch.ones(1024, width, dtype=dtype) for i in range(1, 32)}
    save_file({"w00": torch.ones(1024, 512)} | content, folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bfloat16])
@pytest.mark.parametrize("reader", ["buffered", "direct"])
def test_what_is_not_cast_stays_as_it_was_read(
    tmp_path: Path, limit: Callable[[int], None], reader: str, dtype: torch.dtype
) -> None:
    """What has the dtype that is asked for was counted twice: as it was read, and as if it were cast."""
    save_matrices(tmp_path, dtype)
    limit(60 * MIB)
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(tmp_path, dtype="BF16", reader=reader, options=OPTIONS)
    assert 62 * MIB < caught.value.needed_bytes <= (64 + 1 + 4) * MIB
    limit(69 * MIB)
    assert len(fastload.load(tmp_path, dtype="BF16", reader=reader, options=OPTIONS)) == 32


@pytest.mark.parametrize("reader", ["buffered", "direct", "mmap"])
def test_what_is_not_cut_stays_too(tmp_path: Path, limit: Callable[[int], None], reader: str) -> None:
    save_matrices(tmp_path, torch.float32)
    limit(60 * MIB)
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(tmp_path, shard={"w00": Halved()}, reader=reader, options=OPTIONS)
    assert 62 * MIB < caught.value.needed_bytes <= (64 + 1 + 4) * MIB
    limit(69 * MIB)
    assert len(fastload.load(tmp_path, shard={"w00": Halved()}, reader=reader, options=OPTIONS)) == 32


@pytest.mark.parametrize("reader", ["buffered", "direct", "mmap"])
def test_parts_that_are_cut_out_stay(tmp_path: Path, limit: Callable[[int], None], reader: str) -> None:
    save_matrices(tmp_path, torch.float32)
    limit(30 * MIB)
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(tmp_path, shard={"*": Halved()}, reader=reader, options=OPTIONS)
    assert 32 * MIB < caught.value.needed_bytes <= 32 * MIB + PASSING + 4 * MIB
    limit(caught.value.needed_bytes)
    weights = fastload.load(tmp_path, shard={"*": Halved()}, reader=reader, options=OPTIONS)
    assert weights.report.bytes == 32 * MIB


def test_parts_that_are_cast_stay_as_they_are_cast(tmp_path: Path, limit: Callable[[int], None]) -> None:
    save_matrices(tmp_path, torch.float32)
    limit(14 * MIB)
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(tmp_path, shard={"*": Halved()}, dtype="BF16", reader="buffered", options=OPTIONS)
    assert 16 * MIB < caught.value.needed_bytes <= 16 * MIB + PASSING + (4 + 1) * MIB
    limit(caught.value.needed_bytes)
    weights = fastload.load(tmp_path, shard={"*": Halved()}, dtype="BF16", reader="buffered", options=OPTIONS)
    assert weights.report.bytes == 16 * MIB


def test_a_stream_of_parts_needs_room_for_a_few(tmp_path: Path, limit: Callable[[int], None]) -> None:
    save_matrices(tmp_path, torch.float32)
    limit(PASSING + (4 + 2) * MIB)
    for _, tensor in fastload.stream(tmp_path, shard={"*": Halved()}, reader="buffered", options=OPTIONS):
        assert tensor.shape == (1024, 256)


@pytest.mark.parametrize("keywords", [{}, {"dtype": "BF16"}, {"shard": {"*": Halved()}}])
def test_what_an_error_says_is_needed_is_enough(
    tmp_path: Path, limit: Callable[[int], None], keywords: dict[str, Any]
) -> None:
    """Of more memory more was taken for reading ahead, so that a load with what the error asked for got another one."""
    save_matrices(tmp_path, torch.float32)
    for call in (fastload.load, fastload.stream):
        limit(7 * MIB)
        with pytest.raises(fastload.MemoryBudgetError) as caught:
            list(call(tmp_path, reader="buffered", **keywords))
        limit(caught.value.needed_bytes)
        assert len(list(call(tmp_path, reader="buffered", **keywords))) == 32


@pytest.mark.parametrize("reader", ["buffered", "direct"])
def test_what_is_needed_is_enough_also_where_it_makes_for_larger_extents(
    tmp_path: Path, limit: Callable[[int], None], reader: str
) -> None:
    """With an eighth of 660 MiB each lane has 8 MiB, where with less it had 4: that was missing then."""
    save_file({f"w{i:02}": torch.ones(1024, 2048) for i in range(40)}, tmp_path / "model.safetensors")
    limit(7 * MIB)
    with pytest.raises(fastload.MemoryBudgetError) as caught:
        fastload.load(tmp_path, dtype="F64", reader=reader)
    limit(caught.value.needed_bytes)
    assert fastload.load(tmp_path, dtype="F64", reader=reader).report.bytes == 640 * MIB


def test_without_room_for_reading_ahead_it_is_read_all_the_same(tmp_path: Path, limit: Callable[[int], None]) -> None:
    save_matrices(tmp_path, torch.float32)
    limit((4 + 2 + 2) * MIB)  # a slot, the tensor that is read, the one that was taken
    assert len(list(fastload.stream(tmp_path, reader="buffered"))) == 32
    module = torch.nn.ParameterDict({f"w{i:02}": torch.zeros(1024, 512, dtype=torch.bfloat16) for i in range(32)})
    fastload.load_into(module, tmp_path, reader="buffered")
    assert all(bool((tensor == 1).all()) for tensor in module.values())
