"""``shard=``: each rank keeps a part; what nobody keeps is not read, and rows go to the rank that keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.tensor import Partial, Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

import fastload
import ranks
from models import MIB, random_tensor, save_large
from rank_workers import Workers, workers_of
from ranks import fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 4


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with workers_of(SIZE) as made:
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


def test_each_rank_keeps_its_part(workers: Workers, model: Path) -> None:
    whole = matrices()
    for rank, (got, _, _) in enumerate(workers.call(ranks.load_sharded, str(model), PLAN)):
        assert got == fingerprints(
            {
                "rows.weight": chunk(whole["rows.weight"], 0, rank),
                "columns.weight": chunk(whole["columns.weight"], 1, rank),
                "whole.weight": whole["whole.weight"],
                "short.weight": chunk(whole["short.weight"], 0, rank),
            }
        )


def test_each_byte_is_still_read_once_and_rows_travel_once(workers: Workers, model: Path) -> None:
    reports = [report for _, report, _ in workers.call(ranks.load_sharded, str(model), {"rows.*": Shard(0)})]
    group = reports[0].group
    assert group is not None
    total = (model / "model.safetensors").stat().st_size
    assert sum(each.bytes_read for each in group.ranks) <= 1.05 * total
    rows, others = 16 * MIB, 10 * MIB + 4
    assert sum(each.bytes_received for each in group.ranks) <= rows + (SIZE - 1) * others


def test_what_no_rank_keeps_is_not_read(workers: Workers, tmp_path: Path) -> None:
    save_large(tmp_path, 10, 8 * MIB)
    kept = workers.call(ranks.load_own_layers, str(tmp_path))
    for rank, (names, _) in enumerate(kept):
        assert [int(name.split(".")[1]) for name in names] == list(range(rank, 10, SIZE + 1))
    read = sum(report.bytes_read for _, report in kept)
    nobodys = 2 * 4 * MIB  # of tensors 4 and 9; the rest of them lies in blocks of their neighbours
    assert read <= (tmp_path / "model.safetensors").stat().st_size - nobodys + SIZE * 4096


@pytest.mark.parametrize("verb", ["load", "stream"])
@pytest.mark.parametrize("idle", [0, 2])
def test_a_rank_that_keeps_nothing_reads_its_share_all_the_same(
    workers: Workers, model: Path, idle: int, verb: str
) -> None:
    kept = workers.call(ranks.keep_nothing_on, str(model), idle, verb)
    everything = fingerprints(matrices())
    assert [got for got, _ in kept] == [{} if rank == idle else everything for rank in range(SIZE)]
    assert kept[idle][1].bytes == 0
    group = kept[0][1].group
    assert group is not None
    assert group.ranks[idle].bytes_read > 0
    assert sum(report.bytes_read for _, report in kept) <= 1.05 * (model / "model.safetensors").stat().st_size


def test_who_has_its_last_tensor_goes_on_reading_for_the_others(workers: Workers, tmp_path: Path) -> None:
    """Its window was full of that tensor for ever, and all ranks waited until the deadline."""
    content = {f"t{rank}": random_tensor(64 * MIB, rank) for rank in range(SIZE)}
    save_file(content, tmp_path / "model.safetensors")
    parts = workers.call(ranks.stream_own_tensor, str(tmp_path), sorted(content), 16 * MIB)
    assert parts == [fingerprints({name: tensor}) for name, tensor in content.items()]


def test_a_module_of_dtensors(workers: Workers, model: Path) -> None:
    whole = matrices()
    named = {name.replace(".weight", ""): tensor for name, tensor in whole.items() if name != "short.weight"}
    folder = model.parent / "named"
    folder.mkdir(exist_ok=True)
    save_file(named, folder / "model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    filled = workers.call(ranks.fill_sharded_module, str(folder), shapes)
    assert all(got == fingerprints(named) for got, _ in filled)
    assert sum(read for _, read in filled) <= 1.05 * (folder / "model.safetensors").stat().st_size


def test_a_mesh_of_two_dimensions(workers: Workers, tmp_path: Path) -> None:
    weight = random_tensor(6 * MIB, 9).view(3072, 1024)
    save_file({"weight": weight}, tmp_path / "model.safetensors")
    shape = tuple(weight.shape)
    got = workers.call(ranks.fill_module_with_a_mesh_of_two, str(tmp_path), shape)
    assert all(each == fingerprints({"weight": weight}) for each in got)


@pytest.mark.parametrize("rows", [4096, 4099], ids=["even", "uneven"])
@pytest.mark.parametrize("turns", [2, 3])
def test_strided_placements_are_dealt_out_as_torch_does(
    workers: Workers, tmp_path: Path, rows: int, turns: int
) -> None:
    """FSDP over tensor parallelism gives such ones."""
    whole = {
        "rows": random_tensor(rows * 1024, 11).view(rows, 512),
        "columns": random_tensor(rows * 128, 12).view(64, rows),
        "apart": random_tensor(rows * 1024, 13).view(rows, 512),
    }
    save_file(whole, tmp_path / "model.safetensors")
    assert all(same for same, _ in workers.call(ranks.fill_dealt_in_turns, str(tmp_path), whole, turns))


def test_strided_rows_travel_only_to_who_keeps_them(workers: Workers, tmp_path: Path) -> None:
    whole = {"rows": random_tensor(32 * MIB, 11).view(8192, 2048)}
    save_file(whole, tmp_path / "model.safetensors")
    (_, received), *_ = workers.call(ranks.fill_dealt_in_turns, str(tmp_path), whole, 2)
    assert 0 < received <= whole["rows"].nbytes // SIZE


@pytest.mark.parametrize("rows", [8, 4097])
def test_fsdp_over_tensor_parallelism(workers: Workers, tmp_path: Path, rows: int) -> None:
    weight = random_tensor(rows * 512, 14).view(rows, 256)
    save_file({"weight": weight}, tmp_path / "model.safetensors")
    for found, expected, _ in workers.call(ranks.fill_fsdp_over_tensor_parallel, str(tmp_path), weight, 2):
        assert found == expected


def test_fsdp_deals_uneven_rows_otherwise_than_its_placements_say(tmp_path: Path) -> None:
    """7 rows over two, and then over three: the last of these has 0 of 4 and 1 of 3; DTensor reads that as 1 and 0."""
    weight = random_tensor(7 * 512, 14).view(7, 256)
    save_file({"weight": weight}, tmp_path / "model.safetensors")
    with workers_of(6) as six:
        got = six.call(ranks.fill_fsdp_over_tensor_parallel, str(tmp_path), weight, 2)
    assert [rows for _, _, rows in got] == [2, 1, 2, 1, 0, 1]
    assert all(found == expected for found, expected, _ in got)


def test_as_many_rows_but_which_ones_cannot_be_told(tmp_path: Path) -> None:
    """27 rows on the last but one of 3 by 4 ranks: row 26 by its placements, row 20 if it is FSDP's."""
    save_file({"weight": torch.zeros(27, 2)}, tmp_path / "model.safetensors")
    placed = _Dealt((2, 2), (3, 4), torch.zeros(1, 2))
    with pytest.raises(fastload.UnsupportedError, match="as many"):
        fastload.load(tmp_path, shard={"weight": placed})


@pytest.mark.parametrize(
    ("plan", "kind", "what"),
    [
        ({"rows.*": Shard(2)}, fastload.UsageError, "no dimension 2"),
        ({"nothing.*": Shard(0)}, fastload.UsageError, "matches none"),
        ({"rows.*": [Shard(0), Shard(1)]}, fastload.UsageError, "one dimension"),
        ({"rows.*": Partial()}, fastload.UnsupportedError, "Partial"),
        ({"rows.*": torch.zeros(3)}, fastload.UsageError, "got a tensor of shape (3,), and the model's is ("),
        (["rows"], fastload.UsageError, "list"),
        ({b"rows.weight": Shard(0)}, fastload.UsageError, "got a bytes for a name"),
    ],
)
def test_what_cannot_be_meant_is_said_before_bytes(
    workers: Workers, model: Path, plan: object, kind: type[Exception], what: str
) -> None:
    errors = workers.try_call(ranks.load_with, str(model), {"shard": plan})
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


class _Dealt:
    """As much of a DTensor as says what of it is here."""

    def __init__(self, here: tuple[int, ...], mesh: tuple[int, ...], local: torch.Tensor) -> None:
        self.placements = (_StridedShard(0, split_factor=mesh[1]), Shard(0))
        self.device_mesh = self
        self._here, self._mesh, self._local = here, mesh, local

    def get_coordinate(self) -> tuple[int, ...]:
        return self._here

    def size(self, dim: int) -> int:
        return self._mesh[dim]

    def to_local(self) -> torch.Tensor:
        return self._local


def test_without_a_group_rows_apart_read_only_their_own_blocks(tmp_path: Path) -> None:
    whole = torch.arange(8192 * 2048, dtype=torch.int16).view(8192, 2048)
    save_file({"weight": whole}, tmp_path / "model.safetensors")
    placed = _Dealt((1, 0), (4, 1), whole[:0])
    placed.placements = (_StridedShard(0, split_factor=2), Shard(0))
    weights = fastload.load(tmp_path, shard={"weight": placed}, reader="buffered")
    assert torch.equal(weights["weight"], torch.cat([whole[1024:2048], whole[5120:6144]]))
    assert weights.report.bytes_read <= 16 * MIB + 4096


def test_what_is_cut_away_was_not_delivered(model: Path) -> None:
    """Columns, of which all is read; rows apart, for which there was room between; nothing at all."""
    parts = {
        "columns.weight": _Dealt((3, 0), (4, 1), torch.empty(0)),
        "rows.weight": _Dealt((1, 0), (4, 1), torch.empty(0)),
        "short.weight": _Dealt((3, 0), (4, 1), torch.empty(0)),
    }
    parts["columns.weight"].placements = (_StridedShard(1, split_factor=2), Shard(1))
    parts["rows.weight"].placements = (_StridedShard(0, split_factor=2), Shard(0))
    weights = fastload.load(model, shard=parts)
    assert not weights["short.weight"].nbytes
    assert weights.report.bytes == sum(tensor.nbytes for tensor in weights.values())


def test_a_tensor_beside_dtensors_is_whole(model: Path) -> None:
    """As in ``dict(module.named_parameters())``; what the module has besides does not matter."""
    whole = matrices()
    parts = {"rows.weight": _Placed(1), "whole.weight": torch.empty_like(whole["whole.weight"]), "own": torch.empty(1)}
    weights = fastload.load(model, tensors=["rows.*", "whole.*"], shard=parts)
    expected = {"rows.weight": chunk(whole["rows.weight"], 0, 1), "whole.weight": whole["whole.weight"]}
    assert fingerprints(weights) == fingerprints(expected)


def test_without_a_group_placements_say_nothing(model: Path) -> None:
    with pytest.raises(fastload.UsageError, match="in no group"):
        fastload.load(model, shard={"rows.*": Shard(0)})
