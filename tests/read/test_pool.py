"""Readers that several workers share, and storage that hangs while one is being opened."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fastload._read.pool import ReaderPool
from fastload.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Opened:
    """Counts its closings."""

    alignment_bytes = 1
    name = "buffered"

    def __init__(self) -> None:
        self.closed = 0

    def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        """Nothing is read here."""

    def check_path(self) -> None:
        """It is what it was."""

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def hanging() -> threading.Event:
    """Set, it lets go of what hangs."""
    return threading.Event()


def read_one(pool: ReaderPool[Opened], number: int, done: threading.Event) -> None:
    with pool.reader_for(number):
        done.set()


def start(pool: ReaderPool[Opened], number: int) -> tuple[threading.Thread, threading.Event]:
    done = threading.Event()
    thread = threading.Thread(target=read_one, args=(pool, number, done), daemon=True)
    thread.start()
    return thread, done


def test_an_open_that_hangs_holds_nobody_up(hanging: threading.Event) -> None:
    """Neither who closes, as Ctrl-C does, nor the workers of other files; what was opened late is closed after all."""
    readers = [Opened(), Opened()]
    is_opening = threading.Event()

    def open_reader(number: int) -> Opened:
        if number == 0:
            is_opening.set()
            assert hanging.wait(60)
        return readers[number]

    pool = ReaderPool(open_reader, {0: 2, 1: 1})
    stuck, _ = start(pool, 0)
    assert is_opening.wait(10)
    _, other_done = start(pool, 1)
    assert other_done.wait(10)
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    hanging.set()
    stuck.join(10)
    assert [reader.closed for reader in readers] == [1, 1]


def test_who_comes_while_it_is_being_opened_gets_the_same(hanging: threading.Event) -> None:
    opened: list[int] = []
    is_opening = threading.Event()
    reader = Opened()

    def open_reader(number: int) -> Opened:
        opened.append(number)
        is_opening.set()
        assert hanging.wait(60)
        return reader

    pool = ReaderPool(open_reader, {0: 2})
    first, _ = start(pool, 0)
    assert is_opening.wait(10)
    second, second_done = start(pool, 0)
    assert not second_done.wait(0.1)
    hanging.set()
    first.join(10)
    second.join(10)
    assert (opened, reader.closed) == ([0], 1)


def test_what_cannot_be_opened_is_an_error_for_all_and_needs_no_closing() -> None:
    def open_reader(number: int) -> Opened:
        raise StoreError(f"/m/{number}", "gone", "")

    pool = ReaderPool(open_reader, {0: 2})
    for _ in range(2):
        with pytest.raises(StoreError), pool.reader_for(0):
            pass
    pool.close()


@pytest.mark.parametrize("is_last", [True, False])
def test_an_extent_that_need_not_be_read_keeps_no_reader_open(*, is_last: bool) -> None:
    opened = Opened()
    pool = ReaderPool(lambda _: opened, {0: 2})
    if not is_last:
        pool.forgo(0)
    with pool.reader_for(0):
        assert opened.closed == 0
    if is_last:
        pool.forgo(0)
    assert opened.closed == 1
    pool.close()
    assert opened.closed == 1
