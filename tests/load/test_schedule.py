"""The order of extents, the watermark and the window, without a file."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._load.read.schedule import Schedule
from fastload._plan.extent import Extent

if TYPE_CHECKING:
    from collections.abc import Sequence


MIB = 1 << 20


def _extents(*lengths: int) -> list[Extent]:
    return [Extent(0, sum(lengths[:i]), length) for i, length in enumerate(lengths)]


def _drain(schedule: Schedule) -> list[int]:
    """What may start now; more than that would be waited for, so the schedule is stopped then."""
    started: list[int] = []
    while (number := schedule.start(settle=schedule.stop)) is not None:
        started.append(number)
    return started


def test_extents_start_in_order_and_end() -> None:
    schedule = Schedule(_extents(1, 2, 3), window_bytes=None)
    assert [schedule.start() for _ in range(4)] == [0, 1, 2, None]


def test_who_would_wait_settles_first() -> None:
    """Else the caller would wait for what a worker still checks, and the worker for the caller."""
    schedule = Schedule(_extents(4, 4), window_bytes=4)
    assert schedule.start() == 0
    settled: list[int] = []

    def settle() -> None:
        settled.append(0)
        schedule.finish(0)
        schedule.stop()

    assert schedule.start(settle) is None
    assert settled == [0]


def test_window_bounds_what_starts() -> None:
    assert _drain(Schedule(_extents(4, 4, 4, 4), window_bytes=8)) == [0, 1]


def test_extent_larger_than_the_window_starts_when_it_is_needed() -> None:
    schedule = Schedule(_extents(100, 100, 4), window_bytes=8)
    waiting = threading.Thread(target=schedule.wait_placed, args=(1, lambda _: None))
    waiting.start()
    for expected in (0, 1):
        assert schedule.start() == expected
        schedule.finish(expected)
    waiting.join(5)
    assert not waiting.is_alive()


def test_taking_moves_the_window() -> None:
    schedule = Schedule(_extents(4, 4, 4, 4), window_bytes=8)
    for number in range(2):
        assert schedule.start() == number
        schedule.finish(number)
    schedule.wait_placed(0, lambda _: None)
    schedule.wait_placed(1, lambda _: None)  # so what lies before extent 1 has been taken
    assert _drain(schedule) == [2]


@given(st.permutations(range(8)))
def test_watermark_is_the_first_gap(order: Sequence[int]) -> None:
    schedule = Schedule(_extents(*[10] * 8), window_bytes=None)
    placed: set[int] = set()
    for number in order:
        placed.add(number)
        schedule.finish(number)
        first_gap = next((n for n in range(8) if n not in placed), 8)
        assert schedule.placed_bytes == 10 * first_gap


def test_first_error_reaches_the_caller_and_stops_all() -> None:
    schedule = Schedule(_extents(1, 1), window_bytes=None)
    schedule.fail(LookupError("first"))
    schedule.fail(LookupError("second"))
    assert schedule.start() is None
    with pytest.raises(LookupError, match="first"):
        schedule.wait_placed(0, lambda _: None)


def test_caller_hears_of_every_advance() -> None:
    schedule = Schedule(_extents(5, 6), window_bytes=None)
    told: list[int] = []
    schedule.finish(0)
    schedule.wait_placed(0, told.append)
    schedule.finish(1)
    schedule.wait_placed(1, told.append)
    assert told == [5, 11]


def test_a_caller_who_keeps_all_waits_for_many_extents_at_once() -> None:
    extents = [Extent(0, number * MIB, MIB) for number in range(70)]
    keeping, streaming = Schedule(extents, window_bytes=None), Schedule(extents, window_bytes=8 * MIB)
    assert [keeping.far_from(number) for number in (0, 31, 32, 69)] == [31, 31, 63, 69]
    assert streaming.far_from(3) == 3


def test_a_long_wait_is_told_of() -> None:
    schedule = Schedule([Extent(0, 0, MIB), Extent(0, MIB, MIB)], window_bytes=None)
    told: list[int] = []
    waiting = threading.Thread(target=schedule.wait_placed, args=(1, told.append))
    waiting.start()
    schedule.finish(0)
    while MIB not in told:
        time.sleep(0.01)
    schedule.finish(1)
    waiting.join(5)
    assert told[-1] == 2 * MIB
