"""The file that staged bytes lie in: through the page cache or past it, the same bytes; past it, none in memory."""

from __future__ import annotations

import errno
import mmap
import os
import random
from typing import TYPE_CHECKING

import pytest

from fastload._read.kernel import count_cached_pages
from fastload._store.admit.part import Part
from fastload._store.left import make_new
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = random.Random(1).randbytes(2 * BLOCK_BYTES + 12_345)  # noqa: S311 - content, no secret


def aligned_blocks() -> Iterator[tuple[int, memoryview]]:
    """The content in blocks, each from the beginning of a page on; the last one first."""
    for offset in reversed(range(0, len(CONTENT), BLOCK_BYTES)):
        block = CONTENT[offset : offset + BLOCK_BYTES]
        memory = memoryview(mmap.mmap(-1, BLOCK_BYTES))[: len(block)]
        memory[:] = block
        yield offset, memory


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    """One that writes past the page cache."""
    made = Part(make_new(str(tmp_path / "part")), past_cache=True)
    if not made.is_past_cache:
        pytest.skip("the temporary folder's file system takes no direct writes")
    yield made
    for descriptor in made.descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("past_cache", [True, False])
def test_blocks_are_where_they_belong(tmp_path: Path, *, past_cache: bool) -> None:
    made = Part(make_new(str(tmp_path / "part")), past_cache=past_cache)
    made.reserve(len(CONTENT))
    for offset, block in aligned_blocks():
        made.write(offset, block)
    made.sync(len(CONTENT))
    assert (tmp_path / "part").read_bytes() == CONTENT
    assert made.taken_bytes >= len(CONTENT)
    for descriptor in made.descriptors:
        os.close(descriptor)


def test_what_is_written_past_the_cache_pushes_nothing_out_of_it(part: Part) -> None:
    for offset, block in aligned_blocks():
        part.write(offset, block)
    cached = count_cached_pages(part.descriptor, 0, len(CONTENT))
    if cached is None:
        pytest.skip("this kernel does not say what is cached")
    assert cached <= 1, "at most the page that the file ends within"


def test_a_buffer_that_suits_no_disk_is_written_all_the_same(part: Part, tmp_path: Path) -> None:
    memory = memoryview(bytearray(1 + len(CONTENT)))[1:]
    memory[:] = CONTENT
    part.write(0, memory)
    part.sync(len(CONTENT))
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_write_that_is_cut_within_a_sector_is_ended_through_the_cache(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, direct = os.pwrite, part.descriptors[1]

    def cut_short(descriptor: int, block: memoryview, offset: int) -> int:
        if descriptor != direct:
            return pwrite(descriptor, block, offset)
        return pwrite(descriptor, block[: BLOCK_BYTES // 2], offset) - 100  # as if the last sector had come half

    monkeypatch.setattr(os, "pwrite", cut_short)
    for offset, block in aligned_blocks():
        part.write(offset, block)
    part.sync(len(CONTENT))
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_full_disk_is_said(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="No space left"):
        part.write(0, next(aligned_blocks())[1])


def test_in_memory_there_is_nothing_to_get_past() -> None:
    descriptor = os.memfd_create("part")
    try:
        assert not Part(descriptor, past_cache=True).is_past_cache
    finally:
        os.close(descriptor)
