"""Which part of a tensor a rank keeps, with torch.chunk as the oracle."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastload._format.dtype import DTYPES
from fastload._format.header import TensorInfo
from fastload._plan.cut import Cut, cut_evenly, has_whole_rows, narrow


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


def test_what_is_no_row_is_cut_when_all_of_it_is_there() -> None:
    cut = Cut(((2, 4), (0, 5), (1, 3)))
    assert (cut.shape, cut.rows) == ((2, 5, 2), (2, 4))
    assert cut.within_rows((8, 5, 9)) == (slice(None), slice(0, 5), slice(1, 3))
    assert Cut(((2, 4), (0, 5))).within_rows((8, 5)) is None


@pytest.mark.parametrize(
    ("dtype", "shape", "is_so"),
    [("BF16", (3, 5), True), ("F4", (3, 4), True), ("F4", (4, 3), False), ("F32", (), False)],
)
def test_a_row_of_half_bytes_is_not_cut_out(dtype: str, shape: tuple[int, ...], is_so: bool) -> None:  # noqa: FBT001
    assert has_whole_rows(_info(dtype, *shape)) is is_so
