"""Which part of a tensor a rank keeps, with torch.chunk and DTensor's placements as oracles."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.tensor.placement_types import _StridedShard

from fastload._format.dtype import DTYPES
from fastload._format.header import TensorInfo
from fastload._plan.cut import Cut, Split, cut_evenly, deal, has_whole_rows, innermost_first, narrow


def _info(dtype: str, *shape: int) -> TensorInfo:
    kind = DTYPES[dtype]
    return TensorInfo("x", kind, shape, 100, 100 + math.prod(shape) * kind.bits // 8)


@given(st.integers(0, 50), st.integers(1, 9))
def test_parts_are_those_of_torch(size: int, parts: int) -> None:
    """torch.chunk leaves empty parts out; a rank is there all the same."""
    bounds = [cut_evenly(size, parts, number) for number in range(parts)]
    chunks = [len(chunk) for chunk in torch.arange(size).chunk(parts)]
    assert [end - begin for begin, end in bounds if end > begin] == [length for length in chunks if length]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == size
    assert all(before[1] == after[0] for before, after in pairwise(bounds))


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_rows_are_a_tensor_of_their_own_in_the_file(rows: int, columns: int, data: st.DataObject) -> None:
    info = _info("BF16", rows, columns)
    begin = data.draw(st.integers(0, rows))
    end = data.draw(st.integers(begin, rows))
    part = narrow(info, (begin, end))
    assert part.shape == (end - begin, columns)
    assert (part.begin, part.end) == (100 + begin * columns * 2, 100 + end * columns * 2)


def elements(cut: Cut) -> list[int]:
    """Of the first dimension."""
    return [number for begin, end in cut.kept[0] for number in range(begin, end)]


@given(st.integers(0, 60), st.integers(1, 5), st.integers(1, 6), st.integers(1, 4))
def test_strided_parts_are_those_of_torch(size: int, turns: int, outer: int, inner: int) -> None:
    """As on a mesh of ``outer`` by ``inner`` ranks, also where neither divides evenly."""
    strided, _ = _StridedShard(0, split_factor=turns)._split_tensor(torch.arange(size), outer, with_padding=False)
    for row, part in enumerate(strided):
        taken = Split(0, outer, row, turns)
        assert elements(deal((size,), [taken])) == part.tolist()
        for column in range(inner):
            first, last = cut_evenly(len(part), inner, column)
            assert elements(deal((size,), [taken, Split(0, inner, column)])) == part[first:last].tolist()


@given(st.integers(0, 60), st.integers(1, 6), st.integers(1, 4), st.integers(1, 3))
def test_fsdp_deals_out_what_others_have_dealt_out(size: int, fsdp: int, experts: int, columns: int) -> None:
    """Its own chunk of the chunk that is left of others, which come after it in the placements."""
    for number in range(fsdp):
        splits = [Split(0, fsdp, number, experts * columns), Split(0, experts, 0), Split(0, columns, columns - 1)]
        left = torch.arange(size)
        for parts, which in ((experts, 0), (columns, columns - 1), (fsdp, number)):
            chunks = left.chunk(parts)
            left = chunks[which] if which < len(chunks) else left[:0]
        found = deal((size,), innermost_first(splits))
        assert elements(found) == left.tolist()
        if size % (fsdp * experts * columns) == 0:
            assert found == deal((size,), splits)


def test_what_fsdp_would_not_write_is_what_it_says() -> None:
    splits = [Split(0, 2, 0, turns=3), Split(0, 2, 1)]
    assert innermost_first(splits) == splits


def test_what_is_no_row_is_cut_when_all_of_it_is_there() -> None:
    cut = Cut((((2, 4),), ((0, 5),), ((1, 3), (6, 9))))
    assert (cut.shape, cut.rows) == ((2, 5, 5), (2, 4))
    assert cut.within_rows((2, 5, 9)) == (((0, 2),), ((0, 5),), ((1, 3), (6, 9)))
    assert Cut((((2, 4),), ((0, 5),))).within_rows((2, 5)) is None


def test_rows_apart_are_cut_out_of_those_between() -> None:
    cut = Cut((((2, 4), (7, 8)), ((0, 5),)))
    assert (cut.shape, cut.rows) == ((3, 5), (2, 8))
    assert cut.within_rows((6, 5)) == (((0, 2), (5, 6)), ((0, 5),))
    assert Cut(((), ((0, 5),))).rows == (0, 0)


@pytest.mark.parametrize(
    ("dtype", "shape", "is_so"),
    [("BF16", (3, 5), True), ("F4", (3, 4), True), ("F4", (4, 3), False), ("F32", (), False)],
)
def test_a_row_of_half_bytes_is_not_cut_out(dtype: str, shape: tuple[int, ...], is_so: bool) -> None:  # noqa: FBT001
    assert has_whole_rows(_info(dtype, *shape)) is is_so
