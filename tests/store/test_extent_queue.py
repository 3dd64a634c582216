"""Which extent is brought next, and when there is nothing more to bring."""

from __future__ import annotations

import threading

import pytest

from fastload._store.admit.extent_queue import ExtentQueue


def take_all(queue: ExtentQueue) -> list[tuple[int, int]]:
    return [extent for _ in range(len(queue)) if (extent := queue.take()) is not None]


def test_files_take_turns_and_an_empty_one_has_an_extent_too() -> None:
    queue = ExtentQueue([25, 0, 10], 10, depth=6)
    assert queue.count_by_file() == {0: 3, 1: 1, 2: 1}
    assert take_all(queue) == [(0, 0), (1, 0), (2, 0), (0, 10), (0, 20)]


def test_few_threads_bring_one_file_after_another() -> None:
    assert take_all(ExtentQueue([15, 15], 10, depth=2)) == [(0, 0), (0, 10), (1, 0), (1, 10)]


def test_a_file_is_settled_after_its_last_extent_and_may_come_again() -> None:
    queue = ExtentQueue([15], 10, depth=2)
    take_all(queue)
    assert [queue.count_down(0), queue.count_down(0)] == [False, True]
    queue.settle(0, again=True)
    assert not queue.wait_over(0)
    assert take_all(queue) == [(0, 0), (0, 10)]
    assert [queue.count_down(0), queue.count_down(0)] == [False, True]
    queue.settle(0, again=False)
    assert queue.wait_over(0)
    assert queue.take() is None


def test_who_waits_for_an_extent_gets_what_others_find_wrong() -> None:
    queue = ExtentQueue([5], 10, depth=2)
    take_all(queue)
    got: list[tuple[int, int] | None] = []
    waiting = threading.Thread(target=lambda: got.append(queue.take()))
    waiting.start()
    queue.settle(0, again=True)
    waiting.join(20)
    assert got == [(0, 0)]


def test_the_first_error_counts_and_ends_all_waiting() -> None:
    queue = ExtentQueue([25], 10, depth=2)
    assert not queue.is_stopped_within(0)
    first = ValueError("first")
    queue.stop(first)
    queue.stop(ValueError("second"))
    queue.stop()
    assert queue.take() is None
    assert queue.wait_over(20)
    assert queue.is_stopped_within(20)
    with pytest.raises(ValueError, match="first"):
        queue.check()
