"""A load by several ranks is the load of one: the same tensors, each byte read once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

import fastload
import ranks
from models import MIB, random_tensor, save_large, save_sharded
from rank_workers import Workers, workers_of
from ranks import fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterator


def content() -> dict[str, dict[str, torch.Tensor]]:
    """Two shards of large, small, empty and misaligned tensors; 61 MiB."""
    first = {f"a.{n:02}": random_tensor(3 * MIB, n) for n in range(12)}
    second = {f"b.{n:02}": random_tensor(5 * MIB + 2 * n, 100 + n) for n in range(5)}
    small = {f"c.{n:03}": random_tensor(2 * n, 200 + n) for n in range(40)}
    return {"one.safetensors": first, "two.safetensors": {**second, **small}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sharded(tmp_path_factory.mktemp("model"), content())


@pytest.fixture(scope="module")
def alone(model: Path) -> dict[str, str]:
    """What one process loads."""
    return fingerprints(fastload.load(model))


@pytest.fixture(scope="module", params=[2, 3, 4])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    with workers_of(request.param) as made:
        yield made


def test_all_ranks_get_all_tensors_and_each_byte_is_read_once(
    workers: Workers, model: Path, alone: dict[str, str]
) -> None:
    loaded = workers.call(ranks.load, str(model))
    assert all(got == alone for got, _ in loaded)
    reports = [report for _, report in loaded]
    total = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert total <= sum(report.bytes_read for report in reports) <= 1.05 * total
    assert max(r.bytes_read for r in reports) - min(r.bytes_read for r in reports) <= 8 * MIB + total // 8


def test_rank_0_reports_on_all_ranks(workers: Workers, model: Path) -> None:
    reports = [report for _, report in workers.call(ranks.load, str(model))]
    group = reports[0].group
    assert group is not None
    assert [each.rank for each in group.ranks] == list(range(workers.size))
    assert sum(each.bytes_sent for each in group.ranks) == sum(each.bytes_received for each in group.ranks)
    assert group.slowest in range(workers.size)
    assert f"rank {group.slowest}" in group.reason
    others = [report.group for report in reports[1:]]
    assert [[each.rank for each in other.ranks] for other in others if other] == [[n] for n in range(1, workers.size)]
    assert reports[0].to_dict()["group"]["ranks"][1]["node"] == 0


def test_what_is_said_to_be_read_was_read(workers: Workers, tmp_path: Path) -> None:
    """Of a model with a manifest each rank proves the first block of each shard, for its header; here 1 % a rank."""
    content = {f"layer.{n:02}": torch.zeros(16 * MIB, dtype=torch.uint8) for n in range(24)}
    save_file(content, tmp_path / "model.safetensors")
    fastload.verify(tmp_path, record=True)
    watched = workers.call(ranks.stream_and_watch, str(tmp_path))
    for report, read in watched:
        assert 0 <= read - report.bytes_read < MIB // 4  # settings, the manifest, what the system says of itself
    group = watched[0][0].group
    assert [each.bytes_read for each in group.ranks] == [report.bytes_read for report, _ in watched]
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < sum(each.bytes_read for each in group.ranks) <= 1.05 * size


def test_slow_storage_is_called_slow_in_reading(workers: Workers, model: Path) -> None:
    """Not in exchanging: a rank that waits for what others send, or until it is its turn to send, exchanges nothing."""
    victim = workers.size - 1
    (report, *_) = workers.call(ranks.load_from_slow_storage, str(model), victim, {"options": ranks.SMALL_WINDOW})
    assert report.group is not None
    assert report.group.slowest == victim
    assert f"rank {victim} had its share after" in report.group.reason
    assert "reading (" in report.group.reason


def test_stream_is_in_the_same_order_on_all_ranks(workers: Workers, model: Path, alone: dict[str, str]) -> None:
    for names, got in workers.call(ranks.stream, str(model), {"options": ranks.SMALL_WINDOW}):
        assert names == list(alone)
        assert got == alone


def test_casting_loads_are_the_same_too(workers: Workers, model: Path) -> None:
    expected = fingerprints(fastload.load(model, dtype="F32"))
    assert all(got == expected for got, _ in workers.call(ranks.load_with, str(model), {"dtype": "F32"}))


def test_direct_reads_are_divided_too(workers: Workers, model: Path, alone: dict[str, str]) -> None:
    loaded = workers.call(ranks.load_with, str(model), {"reader": "direct"})
    assert all(got == alone for got, _ in loaded)


def test_a_part_of_the_model(workers: Workers, model: Path, alone: dict[str, str]) -> None:
    loaded = workers.call(ranks.load_with, str(model), {"tensors": "b.*"})
    assert all(got == {name: alone[name] for name in alone if name.startswith("b.")} for got, _ in loaded)
    assert sum(report.bytes_read for _, report in loaded) < 40 * MIB


def test_uneven_consumption_is_no_deadlock(workers: Workers, model: Path, alone: dict[str, str]) -> None:
    assert all(got == alone for got in workers.call(ranks.stream_unevenly, str(model)))


@pytest.mark.parametrize("after", [0, 5])
def test_a_rank_that_closes_early_goes_on_serving(
    workers: Workers, model: Path, alone: dict[str, str], after: int
) -> None:
    leaver = workers.size - 1
    got = workers.call(ranks.stream_and_leave, str(model), leaver, after)
    assert all(each == alone for rank, each in enumerate(got) if rank != leaver)
    assert list(got[leaver]) == list(alone)[:after]
    assert all(got == alone for got, _ in workers.call(ranks.load, str(model)))  # the next load is not disturbed


def test_no_rank_stages_more_than_the_setting(workers: Workers, model: Path, alone: dict[str, str]) -> None:
    """What passes through counts: the model has four times as much."""
    for got, report in workers.call(ranks.load_with, str(model), {"options": ranks.SMALL_WINDOW, "reader": "direct"}):
        assert got == alone
        assert 0 < report.peak_staging_bytes <= 16 * MIB


def test_staging_that_does_not_hold_a_lane_for_each_rank_is_refused(workers: Workers, model: Path) -> None:
    options = fastload.Options(staging_bytes=4 * MIB * (workers.size - 1))
    errors = workers.try_call(ranks.load_with, str(model), {"options": options})
    assert all(isinstance(error, fastload.UsageError | fastload.GroupError) for error in errors)
    assert any(f"one lane for each of {workers.size - 1} ranks" in str(error) for error in errors)


def test_what_fits_each_rank_must_fit_all_of_a_machine(workers: Workers, model: Path, alone: dict[str, str]) -> None:
    """61 MiB and staging; each rank by itself would find room, and the kernel would kill one of them."""
    errors = workers.try_call(ranks.load_with_memory, str(model), 100 * MIB, None)
    assert any(isinstance(error, fastload.MemoryBudgetError) for error in errors)
    assert all(isinstance(error, fastload.MemoryBudgetError | fastload.GroupError) for error in errors)
    assert any(f"{workers.size} ranks of the group share" in str(error) for error in errors)
    room = workers.size * 80 * MIB
    assert all(got == alone for got in workers.call(ranks.load_with_memory, str(model), room, None))


def test_ranks_that_keep_little_leave_room_for_one_that_keeps_all(workers: Workers, model: Path) -> None:
    got = workers.call(ranks.load_with_memory, str(model), 140 * MIB, 0)
    assert [bool(names) for names in got] == [rank == 0 for rank in range(workers.size)]


@pytest.mark.parametrize("names", [["1", "1", "1", "1"], ["1", "2", "3", "4"]], ids=["one name", "a name per rank"])
def test_groups_meet_whatever_torch_calls_them(tmp_path: Path, names: list[str]) -> None:
    """Two rows of a mesh load at the same time, each its own model; NCCL has split them off without asking the store.

    All of them had one name in some versions of torch; in others ranks of one group may have other names for it.
    """
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for number, path in enumerate(paths):
        Path(path).mkdir()
        save_large(Path(path), 3 + number, MIB)
    expected = [fingerprints(fastload.load(path)) for path in paths]
    with workers_of(4) as pairs:
        got = pairs.call(ranks.load_in_pairs, names, paths, {"options": fastload.Options(deadline="20")})
    assert got == [expected[rank // 2] for rank in range(4)]


@pytest.mark.parametrize("lead_s", [0.0, 0.3])
def test_two_groups_of_the_same_ranks_load_at_the_same_time(workers: Workers, tmp_path: Path, lead_s: float) -> None:
    """Each its own model; all began with one of them, or every second rank with the other."""
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for number, path in enumerate(paths):
        Path(path).mkdir()
        save_large(Path(path), 3 + number, MIB)
    expected = [fingerprints(fastload.load(path)) for path in paths]
    for _ in range(2):
        assert workers.call(ranks.load_two_at_once, paths, lead_s) == [expected] * workers.size


@pytest.mark.parametrize("after_s", [0.0, 1.0], ids=["at once", "while the first ones wait"])
def test_two_loads_of_one_group_at_the_same_time_have_their_turns(
    workers: Workers, tmp_path: Path, after_s: float
) -> None:
    """All ranks begin with the same one; the second call of most comes while the first waits for the last rank."""
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for number, path in enumerate(paths):
        Path(path).mkdir()
        save_large(Path(path), 3 + number, MIB)
    expected = [fingerprints(fastload.load(path)) for path in paths]
    workers.begin(ranks.load_two_of_one_group, [paths] * workers.size, workers.size - 1, after_s)
    outcomes = [workers.outcome(rank, within_s=10.0) for rank in range(workers.size)]
    assert [(outcome.error, outcome.value) for outcome in outcomes] == [(None, expected)] * workers.size


def test_two_loads_of_one_group_that_ranks_begin_in_another_order_are_named(workers: Workers, tmp_path: Path) -> None:
    """What meets is not the same: an error on all ranks, and a note of why where that shows; the group works on."""
    paths = [str(tmp_path / name) for name in ("one", "two")]
    for number, path in enumerate(paths):
        Path(path).mkdir()
        save_large(Path(path), 3 + number, MIB)
    late = workers.size - 1
    workers.begin(ranks.load_two_of_one_group, [paths] * late + [paths[::-1]], late, 1.0)
    for rank in range(workers.size):
        error = workers.outcome(rank, within_s=10.0).error
        assert isinstance(error, fastload.GroupError)
        assert "the ranks disagree on headers" in str(error)
        if rank != late:
            assert "Another thread began to load in the same group" in error.__notes__[0]
    assert len(workers.call(ranks.load, paths[0])) == workers.size


def test_nothing_runs_on_the_group_of_whatever_backend(tmp_path: Path) -> None:
    save_large(tmp_path, 4, MIB)
    with workers_of(3) as mute:
        got = mute.call(ranks.load_in_a_group_that_can_do_nothing, str(tmp_path))
    assert got == [fingerprints(fastload.load(tmp_path))] * 3


def test_a_group_may_meet_by_a_file(workers: Workers, model: Path, tmp_path: Path, alone: dict[str, str]) -> None:
    for _ in range(2):  # what the first load has left there is in nobody's way
        assert workers.call(ranks.load_by_a_file, str(model), str(tmp_path / "store")) == [alone] * workers.size


def test_a_group_without_a_store_cannot_meet(workers: Workers, model: Path) -> None:
    errors = workers.try_call(ranks.load_in_a_group_without_a_store, str(model))
    assert all(isinstance(error, fastload.UnsupportedError) and "no store" in str(error) for error in errors)


def test_mmap_is_refused(workers: Workers, model: Path) -> None:
    errors = workers.try_call(ranks.load_with, str(model), {"reader": "mmap"})
    assert all(isinstance(error, fastload.UnsupportedError) for error in errors)
