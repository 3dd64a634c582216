"""Ranks that end, stop or fail while they still wait for each other; the store is served by rank 0's process."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

import fastload
import ranks
from fastload.options import Options
from models import MIB, save_large
from rank_workers import Workers, workers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 3
LATE = 2
LATE_S = 3.0
SOON_S = 4.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    save_large(folder, 4, MIB)
    return str(folder)


@pytest.fixture
def workers() -> Iterator[Workers]:
    with workers_of(SIZE) as made:
        made.call(ranks.survive, list(range(SIZE)))  # all are there
        yield made


def group_error(workers: Workers, rank: int, within_s: float) -> str:
    error = workers.outcome(rank, within_s).error
    assert isinstance(error, fastload.GroupError)
    return str(error)


FALLS = [
    pytest.param(signal.SIGKILL, "ended", id="killed"),
    pytest.param(signal.SIGSTOP, "has given no sign of life", id="stopped"),
]


@pytest.mark.parametrize("is_waiting", [True, False], ids=["waiting", "on its way"])
@pytest.mark.parametrize(("number", "what"), FALLS)
def test_one_that_falls_is_noticed_soon(
    workers: Workers, model: str, number: signal.Signals, what: str, *, is_waiting: bool
) -> None:
    """By rank 0, and by the one that comes late, as it comes.

    While it waits for that one; or when it has called, and not yet looked for the model.
    """
    soon_s, late_s = (SOON_S, LATE_S) if number == signal.SIGKILL else (10.0, 9.0)
    workers.begin(ranks.fall, model, None if is_waiting else 1, number, LATE, late_s)
    if is_waiting:
        time.sleep(1.0)
        workers.send_signal(1, number)
    assert f"rank 1 {what}" in group_error(workers, 0, soon_s)
    assert f"rank 1 {what}" in group_error(workers, LATE, late_s + SOON_S)


@pytest.mark.parametrize(("number", "what"), FALLS)
def test_rank_0_that_falls_on_its_way_is_noticed_too(
    workers: Workers, model: str, number: signal.Signals, what: str
) -> None:
    workers.begin(ranks.fall, model, 0, number, LATE, 0.0)
    for rank in (1, LATE):
        assert f"rank 0 {what}" in group_error(workers, rank, 10.0)


def test_the_end_of_rank_0_is_noticed_by_those_that_wait_with_it(workers: Workers, model: str) -> None:
    """And whoever comes later finds no store."""
    workers.begin(ranks.come_late, model, LATE, LATE_S)
    time.sleep(1.0)
    workers.send_signal(0, signal.SIGKILL)
    assert "rank 0 ended" in group_error(workers, 1, SOON_S)
    assert "the store of the process group cannot be asked" in group_error(workers, LATE, LATE_S + SOON_S)


def test_a_store_that_stands_still_is_waited_for_until_the_deadline(workers: Workers, model: str) -> None:
    workers.send_signal(0, signal.SIGSTOP)
    workers.begin(ranks.load_with, model, {"options": Options(deadline="2")})
    for rank in (1, 2):
        assert "the store of the process group did not answer in time" in group_error(workers, rank, 5.0)


def test_without_a_store_nobody_waits(workers: Workers, model: str) -> None:
    """Not the first rank of a part of the ranks either: what it leaves in the store seems to have arrived there."""
    others = [1, 2]
    workers.call(ranks.make_group, others)
    workers.send_signal(0, signal.SIGKILL)
    workers.begin(ranks.load_in_group, model, others)
    for rank in others:
        assert "the store of the process group cannot be asked" in group_error(workers, rank, 10.0)


def test_without_a_store_a_wrong_keyword_is_still_what_is_said(workers: Workers, model: str) -> None:
    workers.send_signal(0, signal.SIGKILL)
    workers.begin(ranks.load_with, model, {"reader": "none"})
    for rank in (1, 2):
        error = workers.outcome(rank, 5.0).error
        assert isinstance(error, fastload.UsageError)
        assert "could not be told" in error.__notes__[0]


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_wrong_keyword_is_told_to_those_that_are_there_and_as_others_come(
    workers: Workers, model: str, wrong: int
) -> None:
    workers.begin(ranks.come_late_and_wrong, model, wrong, LATE, LATE_S)
    assert f"rank {wrong} failed: UsageError" in group_error(workers, 1 - wrong, LATE_S - 1.0)
    assert f"rank {wrong} failed: UsageError" in group_error(workers, LATE, LATE_S + SOON_S)
    assert isinstance(workers.outcome(wrong, SOON_S).error, fastload.UsageError)


@pytest.mark.parametrize("interrupted", [0, 1])
def test_an_interrupt_before_the_meeting_waits_for_nobody(workers: Workers, model: str, interrupted: int) -> None:
    workers.begin(ranks.interrupt_before_meeting, model, interrupted, LATE, LATE_S)
    outcome = workers.outcome(interrupted, LATE_S)
    assert isinstance(outcome.error, KeyboardInterrupt)
    assert outcome.seconds < 0.5 + 1.5
    assert f"rank {interrupted} failed: KeyboardInterrupt" in group_error(workers, 1 - interrupted, LATE_S)
    if interrupted:  # rank 0's process may have ended
        assert f"rank {interrupted} failed: KeyboardInterrupt" in group_error(workers, LATE, LATE_S + SOON_S)


@pytest.mark.parametrize("interrupted", [0, 1])
def test_an_interrupt_that_ends_no_waiting_is_noticed_soon(workers: Workers, model: str, interrupted: int) -> None:
    """As one that comes right before a wait."""
    workers.begin(ranks.interrupt_unnoticed, model, interrupted, LATE, LATE_S)
    outcome = workers.outcome(interrupted, LATE_S)
    assert isinstance(outcome.error, KeyboardInterrupt)
    assert outcome.seconds < 1.0 + 1.5


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize("options", [Options(deadline="1"), Options(deadline="1", gds="perhaps")])
def test_telling_of_a_wrong_keyword_takes_no_longer_than_the_deadline(
    workers: Workers, model: str, wrong: int, options: Options
) -> None:
    """Also where another setting is wrong as well."""
    workers.begin(ranks.come_wrong_or_not, model, wrong, options)
    outcome = workers.outcome(wrong, 8.0)
    assert isinstance(outcome.error, fastload.UsageError)
    assert outcome.seconds < 1.0 + SOON_S
