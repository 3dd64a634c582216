"""Ranks that each read all: where they begin, what they skip, and who speaks."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload import Options
from fastload.integrations.vllm.ranks import Rank, find_rank, leave_copy, share_pages, stagger
from fastload.integrations.vllm.telling import RankProgress, tell
from fastload.integrations.vllm.wanted import wanted_tensors
from fastload.options import decide_settings
from stored_models import COMMIT, write_cache
from writing import write_index, write_shards

if TYPE_CHECKING:
    from pathlib import Path

    from fastload import Inspection

_SHARDS = {f"model-{n}-of-00004.safetensors": [f"{n}.a", f"{n}.b"] for n in ("00001", "00002", "00003", "00004")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four shards of two tensors."""
    write_shards(tmp_path, _SHARDS)
    write_index(tmp_path, {name: shard for shard, names in _SHARDS.items() for name in names})
    return tmp_path


@pytest.fixture
def inspection(folder: Path) -> Inspection:
    """What is in them."""
    return fastload.inspect(folder)


def _order(rank: Rank, folder: Path, inspection: Inspection) -> list[str]:
    parts = stagger(rank, inspection, None)
    return [name for part in parts for name in fastload.load(folder, tensors=part)]


def test_one_process_is_the_only_rank() -> None:
    assert find_rank() == Rank(0, 1)


def test_each_rank_begins_at_another_shard_and_reads_all(folder: Path, inspection: Inspection) -> None:
    names = [name for names in _SHARDS.values() for name in names]
    orders = [_order(Rank(number, 4), folder, inspection) for number in range(4)]
    assert orders == [names[2 * number :] + names[: 2 * number] for number in range(4)]


def test_the_first_rank_loads_all_in_one_pass(inspection: Inspection) -> None:
    """Only such a load leaves a copy on the local tier, or a manifest."""
    assert stagger(Rank(0, 4), inspection, None) == [None]


@pytest.mark.parametrize(("rank", "tier"), [(1, "local"), (None, "shared")])
def test_a_rank_that_loads_in_parts_leaves_the_copy_to_the_first(
    rank: int | None, tier: str, folder: Path, inspection: Inspection, tmp_path: Path
) -> None:
    """Which would find that another load makes it, and that one cannot."""
    write_cache(tmp_path / "shared", "org/name", COMMIT, {path.name: path.read_bytes() for path in folder.glob("*.*")})
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers="local,shared")
    parts = stagger(Rank(1, 2), inspection, None)
    settings = decide_settings(options, {})
    kept = leave_copy(parts, settings) if rank is not None else settings
    with fastload.stream(
        "org/name", tensors=parts[0], options=replace(options, write_through=kept.write_through)
    ) as of:
        next(of)
        fastload.load("org/name", options=options)
    assert fastload.resolve("org/name", options=options).tier.partition(":")[0] == tier
    assert leave_copy([None], settings) == settings


def test_ranks_share_the_page_cache_unless_a_reader_was_named() -> None:
    assert share_pages(Rank(0, 2), Options()).reader == "buffered"
    assert share_pages(Rank(1, 2), Options(reader="direct")).reader == "direct"
    assert share_pages(Rank(0, 1), Options()).reader is None


def test_shards_that_hold_only_unused_weights_are_not_read(inspection: Inspection) -> None:
    loader = SimpleNamespace(local_expert_ids=None)
    source = SimpleNamespace(is_unused_weight=lambda name: name.startswith("00002") or name == "00003.a")
    wanted = wanted_tensors(loader, source, inspection)
    assert wanted is not None
    assert [name for name in inspection.tensors if not wanted(name)] == ["00002.a", "00002.b"]


def test_where_all_weights_are_unused_all_are_read(inspection: Inspection) -> None:
    loader, source = SimpleNamespace(local_expert_ids=None), SimpleNamespace(is_unused_weight=lambda _: True)
    assert wanted_tensors(loader, source, inspection) is None


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("rank", "lines"),
    [
        (0, ["rank 0: 10.0 GB (50%), 1.00 GB/s", "rank 0: 12.0 GB (60%), 0.43 GB/s, after 18 s without a byte"]),
        (1, ["rank 1: 12.0 GB (60%), 0.43 GB/s, after 18 s without a byte"]),
    ],
)
def test_rank_0_speaks_and_others_only_if_they_are_slow(
    rank: int, lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = _Clock()
    with caplog.at_level(logging.INFO, "vllm.fastload"):
        progress = RankProgress(Rank(rank, 2), clock)
        for clock.now_s, done in ((5.0, 5), (10.0, 10), (28.0, 12), (29.0, 13)):
            progress(done * 10**9, 20 * 10**9)
    assert caplog.messages == lines


def test_the_last_line_says_where_from_how_fast_and_by_what_proof(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fastload.verify(folder, record=True)
    report = fastload.load(folder).report
    with caplog.at_level(logging.INFO, "vllm.fastload"):
        tell(report, Rank(0, 2))
        tell(report, Rank(1, 2))
    (line,) = caplog.messages
    assert line.startswith("3.2e-08 GB from path in ")
    assert "evidence manifest (recorded) (" in line
    assert "bound by " in line


@pytest.mark.parametrize(("rank", "lines"), [(0, 3), (1, 3), (2, 3)])
def test_a_rank_to_which_nothing_comes_says_so_while_it_waits(
    rank: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told ten times a second that nothing has come."""
    clock = _Clock()
    with caplog.at_level(logging.INFO, "vllm.fastload"):
        progress = RankProgress(Rank(rank, 3), clock)
        for tenth in range(350):
            clock.now_s = tenth / 10
            progress(10**9, 20 * 10**9)
    assert len([line for line in caplog.messages if "without a byte" in line]) == lines
