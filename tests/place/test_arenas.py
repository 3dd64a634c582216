"""The memory of a plan: made once, let go when the last tensor in it was taken."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastload._format.dtype import DTYPES
from fastload._format.header import TensorInfo
from fastload._place.placer import Arenas
from fastload._plan.layout import NOWHERE, Placement


def placements(*arenas: int) -> list[Placement]:
    return [Placement(TensorInfo(str(n), DTYPES["U8"], (1,), n, n + 1), arena, 0) for n, arena in enumerate(arenas)]


class Counted:
    """An allocator that remembers what it made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, arena: int) -> object:
        time.sleep(0.01)  # a chance for others to come in between
        self.made.append(arena)
        return object()


def test_memory_is_made_when_it_is_first_needed_and_once() -> None:
    allocate = Counted()
    arenas = Arenas(placements(0, 1, 1), allocate)
    assert allocate.made == []
    assert arenas.get(1) is arenas.get(1)
    assert allocate.made == [1]


def test_threads_that_need_it_at_once_get_the_same() -> None:
    allocate = Counted()
    arenas = Arenas(placements(0), allocate)
    together = threading.Barrier(8)

    def get(_: int) -> object:
        together.wait()
        return arenas.get(0)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(get, range(8))))) == 1
    assert allocate.made == [0]


def test_memory_is_let_go_after_the_last_of_its_tensors() -> None:
    arenas = Arenas(placements(5, 5, 5), Counted())
    made = arenas.get(5)
    for _ in range(2):
        assert arenas.take(5) is made
        assert arenas.get(5) is made
    assert arenas.take(5) is made
    assert arenas.get(5) is not made


def test_one_arena_is_let_go_without_another() -> None:
    arenas = Arenas(placements(0, 1), Counted())
    other = arenas.get(1)
    arenas.get(0)
    arenas.take(0)
    assert arenas.get(1) is other


def test_taking_makes_memory_that_nothing_was_read_into() -> None:
    """As of a mapping, whose bytes are there without anybody reading them."""
    allocate = Counted()
    arenas = Arenas(placements(NOWHERE, 0, 0), allocate)
    assert arenas.take(0) is arenas.take(0)
    assert allocate.made == [0]


def test_memory_that_cannot_be_had_can_be_asked_for_again() -> None:
    answers = iter([MemoryError(), "memory"])

    def allocate(arena: int) -> str:
        answer = next(answers)
        if isinstance(answer, MemoryError):
            raise answer
        return str(answer)

    arenas = Arenas(placements(0), allocate)
    with pytest.raises(MemoryError):
        arenas.get(0)
    assert arenas.get(0) == "memory"
