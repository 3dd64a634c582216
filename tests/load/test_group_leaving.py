"""A rank that closes its stream early owes the others the proof of its files, where that comes at their ends."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import fastload
import leaving
from models import MIB
from proven_models import REPO, Model, flip
from rank_workers import Workers, workers_of
from ranks import fingerprints
from signing import sign
from stored_models import write_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 3
LEAVER = 0
"""Reads the first of the two files."""
OTHERS = (1, 2)


@pytest.fixture
def workers() -> Iterator[Workers]:
    with workers_of(SIZE) as made:
        yield made


@pytest.fixture
def model(tmp_path: Path) -> Model:
    made = Model(tmp_path)
    made.cached()
    return made


def damage_the_end(model: Model) -> None:
    """Of the file that the leaver reads."""
    (path,) = model.local.glob("*/snapshots/*/model-00001-of-00002.safetensors")
    flip(path, path.stat().st_size - 100)


def everything(model: Model, **more: Any) -> list[dict[str, Any]]:
    """All ranks take all, in extents of one block."""
    return [{"options": replace(model.options, staging_bytes="16Mi", **more)} for _ in range(SIZE)]


def the_front(model: Model, **more: Any) -> list[dict[str, Any]]:
    """Only the leaver has a use for the end of its file."""
    keywords = [{**each, "shard": leaving.keep_front} for each in everything(model, **more)]
    keywords[LEAVER]["shard"] = leaving.keep_all_but_one
    return keywords


def outcomes(workers: Workers) -> list[Any]:
    return [workers.outcome(rank, within_s=20) for rank in OTHERS]


def test_what_it_read_counts_as_proven_when_it_has_proven_it(workers: Workers, model: Model) -> None:
    got = workers.call(leaving.leave, REPO, the_front(model), LEAVER)
    for rank in OTHERS:
        tensors, report = got[rank]
        assert tensors == fingerprints({name: t for name, t in model.tensors.items() if leaving.keep_front(name)})
        assert report.evidence == "sha256"


def test_what_it_finds_after_it_has_left_ends_the_load_of_the_others(workers: Workers, model: Model) -> None:
    damage_the_end(model)
    workers.begin(leaving.leave, REPO, the_front(model), LEAVER)
    for outcome in outcomes(workers):
        assert isinstance(outcome.error, fastload.GroupError)
        assert f"rank {LEAVER} failed: IntegrityError" in str(outcome.error)


def test_where_it_ends_before_that_the_report_says_so(workers: Workers, model: Model) -> None:
    workers.begin(leaving.leave_and_end, REPO, the_front(model), LEAVER)
    for outcome in outcomes(workers):
        assert outcome.error is None
        _, report = outcome.value
        assert report.evidence == "none"
        assert f"rank {LEAVER} left and ended before it had proven" in report.evidence_reason


def test_whoever_must_have_proof_gets_an_error(workers: Workers, model: Model) -> None:
    pytest.importorskip("cryptography", reason="signatures need cryptography")
    folder = sign(write_folder(model.local.parent / "signed", model.files))
    keywords = the_front(model, signature_key=str(folder.parent / "key.pem"))
    workers.begin(leaving.leave_and_end, str(folder), keywords, LEAVER)
    for outcome in outcomes(workers):
        assert isinstance(outcome.error, fastload.IntegrityError | fastload.GroupError)
        assert f"rank {LEAVER} left and ended before it had proven" in str(outcome.error)


def test_what_must_be_proven_is_proven_before_it_is_handed_out(workers: Workers, model: Model) -> None:
    """Also by ranks that take a part of the files, whose end they have no use for."""
    damage_the_end(model)
    workers.begin(leaving.take_until_it_fails, REPO, the_front(model, verify="require"))
    for rank in range(SIZE):
        outcome = workers.outcome(rank, within_s=20)
        assert isinstance(outcome.error, fastload.IntegrityError | fastload.GroupError)
        assert outcome.error.__notes__ == ["after 0 tensors"]


def test_what_it_had_not_sent_is_read_by_the_others(workers: Workers, model: Model) -> None:
    """Each reads the rest for itself; of what had come, nobody knows any more whether it was right."""
    workers.begin(leaving.leave_and_end, REPO, everything(model), LEAVER)
    for outcome in outcomes(workers):
        assert outcome.error is None
        tensors, report = outcome.value
        assert tensors == fingerprints(model.tensors)
        assert report.evidence == "none"
        assert f"rank {LEAVER} left and ended before it had proven" in report.evidence_reason


def test_whoever_reads_the_rest_digests_the_whole_file(workers: Workers, model: Model) -> None:
    damage_the_end(model)
    workers.begin(leaving.leave_and_end, REPO, everything(model), LEAVER)
    errors = [outcome.error for outcome in outcomes(workers)]
    assert any(isinstance(error, fastload.IntegrityError) for error in errors)
    for error in errors:
        assert isinstance(error, fastload.IntegrityError | fastload.GroupError)
        assert "model-00001-of-00002" in str(error)


@pytest.mark.parametrize("leaver", range(SIZE))
def test_what_it_repairs_after_it_has_left_is_mended(workers: Workers, tmp_path: Path, leaver: int) -> None:
    """Nobody else has the right block: the second of each file, which two of the ranks read."""
    (tmp_path / "warmed").mkdir()
    model = Model(tmp_path / "warmed")
    folder = model.warmed()
    for name in (name for name in model.files if name.endswith(".safetensors")):
        flip(folder / name, 5 << 20)
    got = workers.call(leaving.leave, REPO, everything(model), leaver)
    assert all(got[rank][0] == fingerprints(model.tensors) for rank in range(SIZE) if rank != leaver)
    deadline_s = time.monotonic() + 5.0
    while any((folder / name).read_bytes() != content for name, content in model.files.items()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("leaver", [1, 2])
@pytest.mark.parametrize("is_warmed", [True, False], ids=["blocks", "whole files"])
def test_rank_0_reports_on_one_that_has_left_too(
    workers: Workers, tmp_path: Path, leaver: int, *, is_warmed: bool
) -> None:
    """What it read for the others after it had left counts as well."""
    (tmp_path / "stored").mkdir()
    model = Model(tmp_path / "stored")
    folder = model.warmed() if is_warmed else model.cached()
    got = workers.call(leaving.leave, REPO, everything(model), leaver)
    group = got[0][1].group
    assert [each.rank for each in group.ranks] == list(range(SIZE))
    assert [each.left_early for each in group.ranks] == [rank == leaver for rank in range(SIZE)]
    total = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert sum(each.bytes_read for each in group.ranks) >= total - 2 * 4096  # but for headers
    assert (group.ranks[leaver].bytes_sent > 0) == (is_warmed or leaver == 1)  # of two whole files, two ranks have one
    own = got[leaver][1]
    assert own.bytes_read <= group.ranks[leaver].bytes_read + 2 * MIB
    assert own.group is None
    assert [each.rank for each in got[3 - leaver][1].group.ranks] == [3 - leaver]


@pytest.mark.parametrize("leavers", [[0], [0, 1], [2]])
def test_the_first_one_that_stays_reports_on_all(workers: Workers, model: Model, leavers: list[int]) -> None:
    """Rank 0 has its report when it closes its stream, and can know nothing of the rest."""
    reports = workers.call(leaving.leave_in_turn, REPO, everything(model), leavers)
    first = min(rank for rank in range(SIZE) if rank not in leavers)
    for rank in range(SIZE):
        group = reports[rank].group
        if rank in leavers:
            assert group is None
        elif rank == first:
            assert [(each.rank, each.left_early) for each in group.ranks] == [(n, n in leavers) for n in range(SIZE)]
        else:
            assert [each.rank for each in group.ranks] == [rank]


def test_one_that_leaves_before_its_first_tensor_is_reported_on(workers: Workers, model: Model) -> None:
    leaver = 1
    group = workers.call(leaving.leave_at_once, REPO, everything(model), leaver)[0].group
    assert group.ranks[leaver].left_early
    assert group.ranks[leaver].bytes_read > 4 * MIB
    assert group.ranks[leaver].share_s > 0
    assert "GB/s overall" in group.ranks[leaver].bottleneck


def test_one_that_cannot_go_on_for_the_others_says_so(workers: Workers, model: Model) -> None:
    leaver = 1
    workers.begin(leaving.leave_without_threads, REPO, everything(model), leaver)
    assert isinstance(
        workers.outcome(leaver, within_s=10).error, fastload.UnsupportedError | fastload.MemoryBudgetError
    )
    for rank in (0, 2):
        error = workers.outcome(rank, within_s=10).error
        assert isinstance(error, fastload.GroupError)
        assert f"rank {leaver} failed: " in str(error)


def test_what_is_known_of_one_that_left_and_ended_is_what_it_said_as_it_left(workers: Workers, model: Model) -> None:
    leaver = 1
    workers.begin(leaving.leave_and_end, REPO, everything(model), leaver)
    outcome = workers.outcome(0, within_s=20)
    assert outcome.error is None
    group = outcome.value[1].group
    assert [each.left_early for each in group.ranks] == [False, True, False]
    assert group.ranks[leaver].bytes_read <= 4 * MIB + 4096  # the first block, and headers
    assert group.ranks[leaver].seconds < 20
