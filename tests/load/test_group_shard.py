"""``shard=``: each rank keeps a part; what nobody keeps is not read, and rows go to the rank that keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from safetensors.torch import save_file
from torch.distributed.tensor import Partial, Replicate, Shard

import fastload
import ranks
from crew import Crew, crew_of
from models import MIB, random_tensor, save_large
from ranks import fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

SIZE = 4


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with crew_of(SIZE) as made:
        yield made


def matrices() -> dict[str, torch.Tensor]:
    """Rows that four ranks cannot share evenly."""
    return {
        "rows.weight": random_tensor(16 * MIB, 1).view(1022 * 2 + 4, 4096),
        "columns.weight": random_tensor(8 * MIB, 2).view(4096, 1024),
        "whole.weight": random_tensor(2 * MIB, 3).view(1024, 1024),
        "short.weight": random_tensor(4, 4).view(2, 1),
    }


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_file(matrices(), folder / "model.safetensors")
    return folder


def chunk(tensor: torch.Tensor, dim: int, rank: int, size: int = SIZE) -> torch.Tensor:
    """What torch itself gives to ``rank``."""
    chunks = tensor.chunk(size, dim)
    return chunks[rank] if rank < len(chunks) else tensor.narrow(dim, 0, 0)


PLAN = {"rows.*": Shard(0), "columns.weight": [Shard(1)], "whole.weight": Replicate(), "short.*": Shard(-2)}


def test_each_rank_keeps_its_part(crew: Crew, model: Path) -> None:
    whole = matrices()
    for rank, (got, _, _) in enumerate(crew.call(ranks.load_sharded, str(model), PLAN)):
        assert got == fingerprints(
            {
                "rows.weight": chunk(whole["rows.weight"], 0, rank),
                "columns.weight": chunk(whole["columns.weight"], 1, rank),
                "whole.weight": whole["whole.weight"],
                "short.weight": chunk(whole["short.weight"], 0, rank),
            }
        )


def test_each_byte_is_still_read_once_and_rows_travel_once(crew: Crew, model: Path) -> None:
    reports = [report for _, report, _ in crew.call(ranks.load_sharded, str(model), {"rows.*": Shard(0)})]
    group = reports[0].group
    assert group is not None
    total = (model / "model.safetensors").stat().st_size
    assert sum(each.bytes_read for each in group.ranks) <= 1.05 * total
    rows, others = 16 * MIB, 10 * MIB + 4
    assert sum(each.bytes_received for each in group.ranks) <= rows + (SIZE - 1) * others


def test_what_no_rank_keeps_is_not_read(crew: Crew, tmp_path: Path) -> None:
    save_large(tmp_path, 10, 8 * MIB)
    kept = crew.call(ranks.load_own_layers, str(tmp_path))
    for rank, (names, _) in enumerate(kept):
        assert [int(name.split(".")[1]) for name in names] == list(range(rank, 10, SIZE + 1))
    read = sum(report.bytes_read for _, report in kept)
    nobodys = 2 * 4 * MIB  # of tensors 4 and 9; the rest of them lies in blocks of their neighbours
    assert read <= (tmp_path / "model.safetensors").stat().st_size - nobodys + SIZE * 4096


@pytest.mark.parametrize("verb", ["load", "stream"])
@pytest.mark.parametrize("idle", [0, 2])
def test_a_rank_that_keeps_nothing_reads_its_share_all_the_same(crew: Crew, model: Path, idle: int, verb: str) -> None:
    kept = crew.call(ranks.keep_nothing_on, str(model), idle, verb)
    everything = fingerprints(matrices())
    assert [got for got, _ in kept] == [{} if rank == idle else everything for rank in range(SIZE)]
    assert kept[idle][1].bytes == 0
    group = kept[0][1].group
    assert group is not None
    assert group.ranks[idle].bytes_read > 0
    assert sum(report.bytes_read for _, report in kept) <= 1.05 * (model / "model.safetensors").stat().st_size


def test_a_module_of_dtensors(crew: Crew, model: Path) -> None:
    whole = matrices()
    named = {name.replace(".weight", ""): tensor for name, tensor in whole.items() if name != "short.weight"}
    folder = model.parent / "named"
    folder.mkdir(exist_ok=True)
    save_file(named, folder / "model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    filled = crew.call(ranks.fill_sharded_module, str(folder), shapes)
    assert all(got == fingerprints(named) for got, _ in filled)
    assert sum(read for _, read in filled) <= 1.05 * (folder / "model.safetensors").stat().st_size


def test_a_mesh_of_two_dimensions(crew: Crew, tmp_path: Path) -> None:
    weight = random_tensor(6 * MIB, 9).view(3072, 1024)
    save_file({"weight": weight}, tmp_path / "model.safetensors")
    shape = tuple(weight.shape)
    got = crew.call(ranks.fill_module_with_a_mesh_of_two, str(tmp_path), shape)
    assert all(each == fingerprints({"weight": weight}) for each in got)


@pytest.mark.parametrize(
    ("plan", "kind", "what"),
    [
        ({"rows.*": Shard(2)}, fastload.UsageError, "no dimension 2"),
        ({"nothing.*": Shard(0)}, fastload.UsageError, "matches none"),
        ({"rows.*": [Shard(0), Shard(1)]}, fastload.UsageError, "one dimension"),
        ({"rows.*": Partial()}, fastload.UnsupportedError, "Partial"),
        (["rows"], fastload.UsageError, "list"),
    ],
)
def test_what_cannot_be_meant_is_said_before_bytes(
    crew: Crew, model: Path, plan: object, kind: type[Exception], what: str
) -> None:
    errors = crew.try_call(ranks.load_with, str(model), {"shard": plan})
    assert any(isinstance(error, kind) and what in str(error) for error in errors)
    assert all(isinstance(error, kind | fastload.GroupError) for error in errors)


class _Mesh:
    """As much of a DeviceMesh as says where this process is in it."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def get_coordinate(self) -> list[int]:
        return [self._rank]

    def size(self, dim: int) -> int:
        return SIZE


class _Placed:
    def __init__(self, rank: int) -> None:
        self.placements = (Shard(0),)
        self.device_mesh = _Mesh(rank)


@pytest.mark.parametrize("rank", range(SIZE))
def test_without_a_group_rows_read_only_their_own_blocks(model: Path, rank: int) -> None:
    weights = fastload.load(model, tensors="rows.*", shard={"rows.*": _Placed(rank)})
    assert fingerprints(weights) == fingerprints({"rows.weight": chunk(matrices()["rows.weight"], 0, rank)})
    assert weights.report.bytes_read <= 8 * MIB + 4096


def test_without_a_group_placements_say_nothing(model: Path) -> None:
    with pytest.raises(fastload.UsageError, match="in no group"):
        fastload.load(model, shard={"rows.*": Shard(0)})
