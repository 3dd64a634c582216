"""A rank that fails ends the load on all ranks, soon and with the cause named; the caller's groups go on working."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import save_file

import fastload
import ranks
from fastload.errors import FastloadError
from fastload.options import Options
from models import MIB, random_tensor, save_large
from rank_workers import Workers, workers_of
from ranks import fingerprints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 3
SOON_S = 10.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_large(folder, 16, 4 * MIB)
    return folder


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """For failures that all processes survive."""
    with workers_of(SIZE) as made:
        yield made


@pytest.fixture
def doomed() -> Iterator[Workers]:
    """For failures that a process does not survive."""
    with workers_of(SIZE) as made:
        yield made


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_rank_that_dies_or_stops_is_noticed_soon(doomed: Workers, model: Path, number: signal.Signals) -> None:
    """The others name it; a group of theirs still works."""
    victim, others = 1, [0, 2]
    doomed.call(ranks.make_group, others)
    doomed.begin(ranks.stream_and_signal, str(model), victim, number)
    for rank in others:
        error = doomed.outcome(rank, within_s=30).error
        assert isinstance(error, fastload.GroupError)
        assert f"rank {victim}" in str(error)
        assert float(error.__notes__[0]) < SOON_S
    doomed.begin(ranks.reduce_over, others)
    assert [doomed.outcome(rank).value for rank in others] == [2.0, 2.0]


def test_a_stopped_rank_that_goes_on_learns_what_was_said_of_it(doomed: Workers, model: Path) -> None:
    doomed.begin(ranks.stream_and_signal, str(model), 1, signal.SIGSTOP)
    for rank in (0, 2):
        assert isinstance(doomed.outcome(rank, within_s=30).error, fastload.GroupError)
    doomed.send_signal(1, signal.SIGCONT)
    assert isinstance(doomed.outcome(1, within_s=SOON_S).error, fastload.GroupError)


def test_an_error_of_one_rank_ends_all_and_the_group_works_on(workers: Workers, model: Path) -> None:
    errors = workers.try_call(ranks.fail_while_streaming, str(model), 2)
    assert isinstance(errors[2], RuntimeError)
    for error in errors[:2]:
        assert isinstance(error, fastload.GroupError)
        assert "rank 2 failed: RuntimeError: no more" in str(error)
    assert workers.call(ranks.reduce_over, [0, 1, 2]) == [3.0] * SIZE
    assert len(workers.call(ranks.load, str(model))) == SIZE


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        (ranks.load_from_broken_storage, fastload.StoreError),
        (ranks.load_without_memory, fastload.MemoryBudgetError),
    ],
)
def test_a_disk_that_dies_and_memory_that_ends_are_named(
    workers: Workers, model: Path, work: Callable[..., object], kind: type[Exception]
) -> None:
    workers.begin(work, str(model), 1)
    outcomes = [workers.outcome(rank, within_s=SOON_S) for rank in range(SIZE)]
    assert isinstance(outcomes[1].error, kind)
    for rank in (0, 2):
        error = outcomes[rank].error
        assert isinstance(error, fastload.GroupError)
        assert f"rank 1 failed: {kind.__name__}" in str(error)
    assert len(workers.call(ranks.load, str(model))) == SIZE


def test_a_deadline_of_one_rank_ends_what_it_waits_for(workers: Workers, model: Path) -> None:
    """Another one thinks for five seconds about which tensors it wants, and is alive all the time."""
    keywords: list[dict[str, object]] = [{}, {"tensors": ranks.want_slowly}, {"options": Options(deadline="1")}]
    workers.begin(ranks.load_by_rank, str(model), keywords)
    outcomes = [workers.outcome(rank) for rank in range(SIZE)]
    assert isinstance(outcomes[2].error, fastload.DeadlineError)
    assert outcomes[2].seconds < 2.5
    for outcome in outcomes[:2]:
        assert isinstance(outcome.error, fastload.GroupError)
        assert "rank 2 failed: DeadlineError" in str(outcome.error)


def test_parameters_that_cannot_be_filled_end_the_load_on_all_ranks(workers: Workers, tmp_path: Path) -> None:
    """The bytes were right and came; still nobody may believe that all ranks have their weights."""
    tensors = {name: random_tensor(8 * MIB, seed) for seed, name in enumerate(("first", "second"))}
    save_file(tensors, tmp_path / "model.safetensors")
    errors = workers.try_call(ranks.fill_tied_on, str(tmp_path), 1)
    assert isinstance(errors[1], fastload.UsageError)
    for error in (errors[0], errors[2]):
        assert isinstance(error, fastload.GroupError)
        assert "rank 1 failed: UsageError: parameter 'second' is tied to another one" in str(error)


@pytest.mark.parametrize(
    ("keywords", "what"),
    [
        ([{"dtype": "F32"}, {}, {}], "dtype"),
        ([{}, {"verify": "off"}, {}], "verify"),
        ([{}, {}, {"tensors": "layer.00*"}], "tensors=: rank 0 has '16 tensors"),
        ([{}, {"options": Options(signature_key="/no/key")}, {}], "key of signature_key"),
    ],
)
def test_disagreement_is_one_error_on_all_ranks(
    workers: Workers, model: Path, keywords: list[dict[str, str]], what: str
) -> None:
    errors = workers.try_call(ranks.load_by_rank, str(model), keywords)
    assert all(isinstance(error, fastload.GroupError) for error in errors)
    assert len({str(error) for error in errors}) == 1
    assert what in str(errors[0])


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        ("fastload.__version__", "0.0.9", "the version of fastload: rank 0 has '0.1.0', rank 1 '0.0.9'"),
        ("fastload._load.group.dividing._STRIPE_BYTES", 4 * MIB, "the plan"),
    ],
)
def test_other_code_on_one_rank_is_noticed(
    workers: Workers, tmp_path: Path, place: str, value: object, what: str
) -> None:
    """Before bytes: extents of another plan would arrive where none, or others, are due."""
    save_large(tmp_path, 64, 4 * MIB)
    errors = workers.try_call(ranks.load_with_other_code, str(tmp_path), 1, place, value)
    assert all(isinstance(error, fastload.GroupError) for error in errors)
    assert len({str(error) for error in errors}) == 1
    assert f"the ranks disagree on {what}" in str(errors[0])


def test_what_is_a_ranks_own_may_differ(workers: Workers, model: Path, tmp_path: Path) -> None:
    """A node's paths and storage; what a process may use; how long it has patience."""
    own = [
        Options(local=str(tmp_path / "one"), manifests=str(tmp_path / "three"), staging_bytes="24Mi", max_rate="1Gi"),
        Options(shared=str(tmp_path / "two"), reader="buffered", gds="off", deadline="60", write_through="off"),
        Options(reader="direct", tiers=("local",), transfer="hub", min_free="1%", local_max_bytes="1Ti"),
    ]
    keywords = [{"options": each, "progress": bool(rank)} for rank, each in enumerate(own)]
    loaded = workers.call(ranks.load_by_rank, str(model), keywords)
    assert [got for got, _ in loaded] == [fingerprints(fastload.load(model))] * SIZE
    assert [report.reader for _, report in loaded[1:]] == ["buffered", "direct"]


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    ("call", "keywords"),
    [
        (ranks.load_by_rank, {"progress": 3}),
        (ranks.load_by_rank, {"verify": "perhaps"}),
        (ranks.load_by_rank, {"device": "abacus"}),
        (ranks.load_by_rank, {"dtype": "F33"}),
        (ranks.load_by_rank, {"reader": "mmap"}),
        (ranks.load_by_rank, {"tensors": "no.such.*"}),
        (ranks.stream_by_rank, {"subfolder": 3}),
        (ranks.fill_by_rank, {"dtype": "F33"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.__name__,
)
def test_a_keyword_that_is_wrong_on_one_rank_keeps_nobody_waiting(
    workers: Workers, model: Path, call: Callable[..., object], keywords: dict[str, object], rank: int
) -> None:
    """It raises its own error; the others are told, and a new load works."""
    workers.begin(call, str(model), [keywords if number == rank else {} for number in range(SIZE)])
    outcomes = [workers.outcome(number, within_s=SOON_S) for number in range(SIZE)]
    own = outcomes.pop(rank).error
    assert isinstance(own, fastload.UsageError | fastload.UnsupportedError)
    for outcome in outcomes:
        assert isinstance(outcome.error, fastload.GroupError)
        assert f"rank {rank} failed: {type(own).__name__}: {own}"[:100] in str(outcome.error)
    assert len(workers.call(ranks.load, str(model))) == SIZE


def test_a_rank_that_finds_nothing_is_named(workers: Workers, tmp_path: Path) -> None:
    """All of them find nothing here: each says so itself."""
    errors = workers.try_call(ranks.load, str(tmp_path / "nowhere"))
    assert all(isinstance(error, FastloadError) for error in errors)
    assert any(isinstance(error, fastload.ModelNotFoundError) for error in errors)


@pytest.mark.parametrize("lost", [0, 2])
def test_the_one_rank_that_finds_nothing_says_so_and_is_named(
    workers: Workers, model: Path, tmp_path: Path, lost: int
) -> None:
    """Its error is its own, as always; those that have found the model do not say that they have not."""
    paths = [str(tmp_path / "nowhere") if rank == lost else str(model) for rank in range(SIZE)]
    workers.begin(ranks.load_path_of_rank, paths)
    for rank in range(SIZE):
        error = workers.outcome(rank, within_s=SOON_S).error
        if rank == lost:
            assert isinstance(error, fastload.ModelNotFoundError)
            assert "found it: give all ranks of a machine the same tiers" in error.__notes__[0]
        else:
            assert isinstance(error, fastload.GroupError)
            assert f"rank {lost} failed: ModelNotFoundError: no model '{paths[lost]}'" in str(error)


@pytest.mark.parametrize("after", [0, 3])
def test_a_rank_that_closes_early_and_ends_its_process_is_read_for(doomed: Workers, model: Path, after: int) -> None:
    """It had taken its leave: what it owes the others is read by them."""
    doomed.begin(ranks.stream_and_exit, str(model), 1, after)
    expected = ranks.fingerprints(fastload.load(model))
    for rank in (0, 2):
        outcome = doomed.outcome(rank)
        assert outcome.error is None
        assert outcome.value == expected


@pytest.mark.parametrize(("victim", "more"), [(rank, more) for rank in (0, 1) for more in range(5)])
def test_a_rank_that_may_open_too_few_descriptors_is_named(
    workers: Workers, model: Path, victim: int, more: int
) -> None:
    """Whatever it lacks them for: coming, connecting to the others, listening to them."""
    workers.begin(ranks.load_with_few_files, str(model), victim, more)
    for rank in range(SIZE):
        error = workers.outcome(rank, SOON_S).error
        assert "Too many open files" in str(error)
        if rank == victim:
            assert isinstance(error, fastload.FastloadError)
            assert not isinstance(error, fastload.GroupError)
        else:
            assert isinstance(error, fastload.GroupError)
            assert f"rank {victim} failed: " in str(error)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_may_start_no_thread_says_so_itself(workers: Workers, model: Path, victim: int) -> None:
    workers.begin(ranks.load_without_threads, str(model), victim)
    for rank in range(SIZE):
        error = workers.outcome(rank, SOON_S).error
        if rank == victim:
            assert isinstance(error, fastload.MemoryBudgetError | fastload.UnsupportedError)
        else:
            assert isinstance(error, fastload.GroupError)
            assert f"rank {victim} failed: " in str(error)
