"""Blocks in buffers that end anywhere."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastload._read import blocks
from fastload._read.blocks import cut, joined, runs_of, split_blocks


@pytest.fixture(autouse=True, scope="module")
def _small_blocks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", 4)
        yield


def test_a_block_that_lies_over_several_buffers_is_one_block() -> None:
    buffers = [memoryview(bytearray(piece)) for piece in (b"01", b"2", b"345678", b"9__")]
    found = [(index, bytes(joined(pieces))) for index, pieces in split_blocks(4, buffers, 14)]
    assert found == [(1, b"0123"), (2, b"4567"), (3, b"89")]


def test_a_block_in_one_piece_is_not_copied() -> None:
    buffer = memoryview(bytearray(b"0123"))
    ((_, pieces),) = split_blocks(0, [buffer], 4)
    joined(pieces)[0] = ord("x")
    assert buffer[0] == ord("x")


@given(st.binary(max_size=40), st.lists(st.integers(0, 9), max_size=12), st.integers(0, 9))
def test_blocks_are_the_files_whatever_the_buffers(content: bytes, cuts: list[int], beyond: int) -> None:
    raw = content + bytes(beyond)
    buffers, at = [], 0
    for length in [*cuts, len(raw)]:
        buffers.append(memoryview(bytearray(raw[at : at + length])))
        at += length
    found = {index: bytes(joined(pieces)) for index, pieces in split_blocks(0, buffers, len(content))}
    assert found == {at // 4: content[at : at + 4] for at in range(0, len(content), 4)}


@given(st.lists(st.binary(max_size=9), max_size=9), st.integers(0, 90), st.integers(0, 90))
def test_what_is_cut_out_is_the_buffers_own(pieces: list[bytes], begin: int, end: int) -> None:
    buffers = [memoryview(bytearray(piece)) for piece in pieces]
    found = cut(buffers, begin, end)
    assert all(found)
    for piece in found:
        piece[:] = bytes(len(piece))
    whole = b"".join(pieces)
    left = bytes(max(0, min(end, len(whole)) - begin))
    assert b"".join(map(bytes, buffers)) == whole[:begin] + left + whole[begin + len(left) :]


@given(st.sets(st.integers(0, 30)))
def test_runs_are_as_long_as_they_can_be(numbers: set[int]) -> None:
    runs = list(runs_of(sorted(numbers)))
    assert [number for begin, end in runs for number in range(begin, end)] == sorted(numbers)
    assert all(end < begin for (_, end), (begin, _) in pairwise(runs))
