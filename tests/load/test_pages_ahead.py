"""A thread that makes the pages of a load's memory, ahead of those that read into it past the page cache."""

from __future__ import annotations

import mmap
import threading
from typing import TYPE_CHECKING

import pytest

import fastload
from fastload._place import memory
from fastload._read.pread import DirectReader
from fastload.errors import IntegrityError, MemoryBudgetError
from models import MIB, assert_same, save_large

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

_MAKER = "fastload._place.host.make_pages"


@pytest.fixture
def content(tmp_path: Path) -> dict[str, torch.Tensor]:
    return save_large(tmp_path)


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[int]]:
    """Does something before pages are made, and notes how many bytes of them."""
    make = memory.make_pages

    def watch(before: Callable[[], object]) -> list[int]:
        asked: list[int] = []

        def watched(pages: memoryview) -> bool:
            asked.append(len(pages))
            before()
            return make(pages)

        monkeypatch.setattr(_MAKER, watched)
        return asked

    return watch


def hold_reads(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What lets them go on."""
    go_on, read = threading.Event(), DirectReader.read_into

    def waiting(reader: DirectReader, offset: int, buffers: list[memoryview]) -> None:
        assert go_on.wait(20)
        read(reader, offset, buffers)

    monkeypatch.setattr(DirectReader, "read_into", waiting)
    return go_on


@pytest.mark.usefixtures("leaks_nothing")
def test_all_pages_are_made_while_the_disk_is_waited_for(
    tmp_path: Path,
    content: dict[str, torch.Tensor],
    making: Callable[[Callable[[], object]], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = hold_reads(monkeypatch)
    asked: list[int] = []

    def let_go() -> None:
        if sum(asked) == 64 * MIB + mmap.PAGESIZE:
            go_on.set()

    asked = making(let_go)
    # More than all lanes take at first: what has begun altogether needs no pages ahead.
    assert_same(fastload.load(tmp_path, reader="direct", options=fastload.Options(staging_bytes=8 * MIB)), content)
    assert sum(asked) == 64 * MIB + mmap.PAGESIZE  # the first tensor begins as far behind a border as in the file


@pytest.mark.parametrize("reader", ["buffered", "mmap"])
def test_who_copies_nothing_makes_its_pages_itself(
    tmp_path: Path,
    content: dict[str, torch.Tensor],
    making: Callable[[Callable[[], object]], list[int]],
    reader: str,
) -> None:
    asked = making(lambda: None)
    assert_same(fastload.load(tmp_path, reader=reader), content)
    assert not asked


def test_none_are_made_for_who_takes_one_after_another(
    tmp_path: Path, content: dict[str, torch.Tensor], making: Callable[[Callable[[], object]], list[int]]
) -> None:
    asked = making(lambda: None)
    with fastload.stream(tmp_path, reader="direct") as stream:
        assert_same(dict(stream), content)
    assert not asked


@pytest.mark.usefixtures("leaks_nothing", "content")
def test_no_memory_for_them_ends_the_load(
    tmp_path: Path, making: Callable[[Callable[[], object]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_reads(monkeypatch).set()

    def refuse() -> None:
        raise MemoryBudgetError(1, 0, "the test")

    making(refuse)
    with pytest.raises(MemoryBudgetError, match="the test"):
        fastload.load(tmp_path, reader="direct", options=fastload.Options(staging_bytes=8 * MIB))


@pytest.mark.usefixtures("leaks_nothing", "content")
def test_a_load_that_fails_makes_no_more(
    tmp_path: Path, making: Callable[[Callable[[], object]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed = threading.Event()

    def fail(reader: DirectReader, offset: int, buffers: list[memoryview]) -> None:
        has_failed.set()
        raise IntegrityError("m", 0, "this", "that", "")

    monkeypatch.setattr(DirectReader, "read_into", fail)
    asked = making(lambda: has_failed.wait(20))
    with pytest.raises(IntegrityError, match="this"):
        fastload.load(tmp_path, reader="direct")
    assert len(asked) <= 2, "one that was under way, and one before the load was told"


@pytest.mark.usefixtures("leaks_nothing")
def test_without_a_thread_for_it_all_is_read_as_well(
    tmp_path: Path, content: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, left = threading.Thread.start, iter(range(2))  # one that resolves, one that reads

    def refuse(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert_same(fastload.load(tmp_path, reader="direct"), content)
