"""Extents: whole blocks, each once, nothing that nobody wants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._plan.extent import Extent, build_extents
from fastload._verify.digest import BLOCK_BYTES

BLOCK = BLOCK_BYTES


def extents(
    *wanted: tuple[int, int], file_bytes: int = 100 * BLOCK, extent_bytes: int = 4 * BLOCK
) -> list[tuple[int, int]]:
    """Begin and end of what is built for ``wanted``."""
    built = build_extents(0, wanted, file_bytes=file_bytes, extent_bytes=extent_bytes)
    return [(extent.offset, extent.end) for extent in built]


def test_a_block_is_four_mebibytes() -> None:
    assert BLOCK_BYTES == 4 * 1024 * 1024  # digests in manifests depend on it


def test_nothing_wanted_reads_nothing() -> None:
    assert extents() == []
    assert extents((7, 7), (9, 9)) == []


def test_an_extent_knows_its_shard_and_end() -> None:
    assert list(build_extents(3, [(0, 1)], file_bytes=10, extent_bytes=BLOCK)) == [Extent(3, 0, 10)]
    assert Extent(3, 4, 10).end == 14


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param((0, BLOCK), (0, BLOCK), id="a whole block"),
        pytest.param((BLOCK - 1, BLOCK), (0, BLOCK), id="its last byte"),
        pytest.param((BLOCK, BLOCK + 1), (BLOCK, 2 * BLOCK), id="the next one's first byte"),
        pytest.param((BLOCK - 1, BLOCK + 1), (0, 2 * BLOCK), id="one byte of each"),
    ],
)
def test_a_range_grows_to_the_borders_of_its_blocks(wanted: tuple[int, int], expected: tuple[int, int]) -> None:
    assert extents(wanted) == [expected]


def test_the_last_block_ends_with_the_file() -> None:
    assert extents((BLOCK, BLOCK + 5), file_bytes=BLOCK + 5) == [(BLOCK, BLOCK + 5)]


def test_ranges_in_the_same_block_or_in_neighbours_coalesce() -> None:
    assert extents((0, 1), (5, 6), (BLOCK + 1, BLOCK + 2)) == [(0, 2 * BLOCK)]


def test_a_block_that_nobody_wants_is_not_read() -> None:
    assert extents((0, 1), (2 * BLOCK, 2 * BLOCK + 1)) == [(0, BLOCK), (2 * BLOCK, 3 * BLOCK)]


def test_an_empty_range_far_away_brings_no_block() -> None:
    assert extents((0, 1), (50 * BLOCK + 1, 50 * BLOCK + 1)) == [(0, BLOCK)]


def test_a_range_inside_another_adds_nothing() -> None:
    assert extents((0, 3 * BLOCK), (1, 2)) == [(0, 3 * BLOCK)]


def test_a_long_run_is_cut_from_its_own_begin() -> None:
    assert extents((3 * BLOCK, 6 * BLOCK), extent_bytes=2 * BLOCK) == [
        (3 * BLOCK, 5 * BLOCK),
        (5 * BLOCK, 6 * BLOCK),
    ]


@st.composite
def files(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    """A file's size, and ranges in it as a header gives them: sorted, and without overlap."""
    file_bytes = draw(st.integers(1, 30 * BLOCK))
    near_border = st.integers(0, 30).map(lambda n: n * BLOCK) | st.integers(1, 30).map(lambda n: n * BLOCK - 1)
    ends = draw(st.lists(st.integers(0, file_bytes) | near_border, max_size=12))
    marks = sorted(min(end, file_bytes) for end in ends)
    return file_bytes, list(zip(marks[::2], marks[1::2], strict=False))


@given(files(), st.integers(1, 5))
def test_extents_are_exactly_the_wanted_blocks_each_once(
    file: tuple[int, list[tuple[int, int]]], extent_blocks: int
) -> None:
    file_bytes, wanted = file
    built = list(build_extents(0, wanted, file_bytes=file_bytes, extent_bytes=extent_blocks * BLOCK))

    blocks = [block for extent in built for block in range(extent.offset // BLOCK, -(-extent.end // BLOCK))]
    expected = {
        block for begin, end in wanted if begin < end for block in range(begin // BLOCK, (end - 1) // BLOCK + 1)
    }
    assert blocks == sorted(expected)  # in file order, none twice, none too many
    for extent in built:
        assert 0 < extent.length <= extent_blocks * BLOCK
        assert extent.offset % BLOCK == 0
        assert extent.end % BLOCK == 0 or extent.end == file_bytes
