"""Layouts: aligned, apart, within the limits, and in one stretch wherever that is possible."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints import Sized, header_of, sized_tensors
from fastload._format.dtype import DTYPES
from fastload._format.header import TensorInfo
from fastload._plan.layout import (
    NOWHERE,
    Layout,
    LayoutRules,
    Placement,
    Segment,
    lay_out,
    lay_out_apart,
    lay_out_mapped,
    round_up,
)

KIB = 1 << 10
ONE_ARENA = LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=None, own_bytes=None)
DEVICE = LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 * KIB, own_bytes=KIB)


def places(layout: Layout) -> list[tuple[int, int]]:
    return [(placement.arena, placement.offset) for placement in layout.placements]


def lay(rules: LayoutRules, *tensors: tuple[str, int], first_arena: int = 0) -> Layout:
    sized = [Sized(f"t{number}", dtype, count) for number, (dtype, count) in enumerate(tensors)]
    return lay_out(header_of(sized).tensors, rules, first_arena=first_arena)


def test_nothing_takes_no_memory() -> None:
    assert lay(ONE_ARENA) == Layout((), (), ())


def test_tensors_that_stay_aligned_are_one_segment() -> None:
    layout = lay(ONE_ARENA, ("F32", 2), ("BF16", 4), ("U8", 3))
    assert layout.segments == (Segment(100, 119, 0, 0),)
    assert places(layout) == [(0, 0), (0, 8), (0, 16)]
    assert layout.arena_bytes == (19,)


def test_a_tensor_that_would_be_misaligned_begins_a_new_segment() -> None:
    layout = lay(ONE_ARENA, ("U8", 3), ("F32", 1))
    assert layout.segments == (Segment(100, 103, 0, 0), Segment(103, 107, 0, 64))
    assert layout.arena_bytes == (68,)


def test_a_gap_in_the_file_begins_a_new_segment() -> None:
    infos = header_of([Sized("a", "U8", 64), Sized("unwanted", "U8", 64), Sized("c", "U8", 1)]).tensors
    layout = lay_out((infos[0], infos[2]), ONE_ARENA, first_arena=0)
    assert layout.segments == (Segment(100, 164, 0, 0), Segment(228, 229, 0, 64))


def test_an_empty_tensor_is_nowhere_and_parts_nobody() -> None:
    layout = lay(ONE_ARENA, ("U8", 2), ("F64", 0), ("U8", 2))
    assert places(layout) == [(0, 0), (NOWHERE, 0), (0, 2)]
    assert len(layout.segments) == 1


def test_a_tensor_at_the_limit_owns_its_arena() -> None:
    layout = lay(DEVICE, ("U8", 16), ("U8", KIB), ("U8", 16))
    assert layout.arena_bytes == (16, KIB, 16)
    assert places(layout) == [(0, 0), (1, 0), (2, 0)]


def test_an_arena_is_full_before_it_is_too_large() -> None:
    rules = LayoutRules(start_alignment=16, tensor_alignment=16, arena_bytes=64, own_bytes=None)
    assert lay(rules, *[("U8", 16)] * 5).arena_bytes == (64, 16)


def test_a_shared_arena_counts_its_padding_against_the_limit() -> None:
    rules = LayoutRules(start_alignment=32, tensor_alignment=32, arena_bytes=64, own_bytes=None)
    assert lay(rules, ("U8", 1), ("U8", 33)).arena_bytes == (1, 33)


def test_arenas_are_numbered_from_where_the_caller_says() -> None:
    assert places(lay(DEVICE, ("U8", 2 * KIB), ("U8", 1), first_arena=7)) == [(7, 0), (8, 0)]


def test_a_start_is_aligned_for_the_tensor_even_where_the_rule_asks_for_less() -> None:
    rules = LayoutRules(start_alignment=2, tensor_alignment=1, arena_bytes=None, own_bytes=None)
    assert places(lay(rules, ("U8", 3), ("F64", 1))) == [(0, 0), (0, 8)]


def test_an_arena_begins_as_far_behind_a_border_as_its_tensors_in_the_file() -> None:
    rules = replace(ONE_ARENA, read_alignment=64)
    layout = lay(rules, ("F32", 2), ("BF16", 4), ("U8", 3))
    assert layout.segments == (Segment(100, 119, 0, 36),)
    assert layout.arena_bytes == (55,)


def test_what_the_file_has_misaligned_is_aligned_wherever_reads_would_like_it() -> None:
    assert places(lay(replace(ONE_ARENA, read_alignment=64), ("F64", 1))) == [(0, 0)]  # at 100 in the file


POWERS = st.sampled_from([1, 2, 4, 8, 16, 64, 256])
RULES = st.builds(
    LayoutRules,
    start_alignment=POWERS,
    tensor_alignment=POWERS,
    arena_bytes=st.none() | st.integers(256, 100_000),
    own_bytes=st.none() | st.integers(1, 100_000),
    read_alignment=POWERS,
)


@given(sized_tensors(max_bytes=300_000), RULES, st.sets(st.integers(0, 11)), st.integers(0, 3))
def test_placements_are_aligned_apart_and_inside_arenas_within_the_limit(
    tensors: list[Sized], rules: LayoutRules, unwanted: set[int], first_arena: int
) -> None:
    infos = [info for n, info in enumerate(header_of(tensors).tensors) if n not in unwanted]
    layout = lay_out(infos, rules, first_arena=first_arena)

    assert [placement.info for placement in layout.placements] == infos
    placed = sorted((p.arena, p.offset, p) for p in layout.placements if p.info.nbytes)
    for arena, offset, placement in placed:
        assert offset % rules.tensor_alignment == 0
        assert offset % placement.info.dtype.alignment_bytes == 0
        assert offset + placement.info.nbytes <= layout.arena_bytes[arena - first_arena]
    for (arena, _, before), (next_arena, offset, _) in pairwise(placed):
        assert arena != next_arena or before.offset + before.info.nbytes <= offset
    assert {arena for arena, _, _ in placed} == {first_arena + n for n in range(len(layout.arena_bytes))}
    check_limits(layout, rules, first_arena)


def check_limits(layout: Layout, rules: LayoutRules, first_arena: int) -> None:
    for number, nbytes in enumerate(layout.arena_bytes):
        inside = [p for p in layout.placements if p.arena == first_arena + number]
        shared = len(inside) > 1
        assert not shared or rules.arena_bytes is None or nbytes <= rules.arena_bytes
        assert not shared or all(rules.own_bytes is None or p.info.nbytes < rules.own_bytes for p in inside)


@given(sized_tensors(max_bytes=300_000), RULES, st.sets(st.integers(0, 11)))
def test_segments_are_the_wanted_bytes_in_file_order_and_agree_with_the_placements(
    tensors: list[Sized], rules: LayoutRules, unwanted: set[int]
) -> None:
    infos = [info for n, info in enumerate(header_of(tensors).tensors) if n not in unwanted]
    layout = lay_out(infos, rules, first_arena=0)

    assert sum(segment.end - segment.begin for segment in layout.segments) == sum(info.nbytes for info in infos)
    for before, after in pairwise(layout.segments):
        assert before.end <= after.begin
    arenas = set()
    for segment in layout.segments:
        is_first = segment.arena not in arenas
        as_in_file = is_first and segment.offset == segment.begin % rules.read_alignment
        assert as_in_file or segment.offset % rules.start_alignment == 0
        arenas.add(segment.arena)
    for info, arena, offset in layout.placements:
        if info.nbytes:
            (home,) = [segment for segment in layout.segments if segment.begin <= info.begin < segment.end]
            assert (home.arena, home.offset + info.begin - home.begin) == (arena, offset)
            assert info.end <= home.end


def test_a_mapping_puts_a_tensor_where_the_file_has_it() -> None:
    header = header_of([Sized("a", "U8", 3), Sized("none", "F32", 0), Sized("b", "F64", 1)])
    layout = lay_out_mapped(header.tensors, header.file_bytes, first_arena=5)
    assert layout.arena_bytes == (111,)
    assert layout.segments == (Segment(0, 111, 5, 0),)
    assert places(layout) == [(5, 100), (NOWHERE, 103), (5, 103)]


@pytest.mark.parametrize(
    ("spelling", "offset", "is_aligned"),
    [("U8", 1, True), ("F4", 3, True), ("BF16", 1, False), ("F32", 6, False), ("F32", 8, True), ("C64", 4, False)],
)
def test_a_placement_is_aligned_where_its_dtype_may_lie(spelling: str, offset: int, is_aligned: bool) -> None:  # noqa: FBT001
    info = TensorInfo("a", DTYPES[spelling], (2,), 8, 8 + 2 * DTYPES[spelling].bits // 8)
    assert Placement(info, 0, offset).is_aligned is is_aligned


def test_apart_every_tensor_has_an_arena_and_an_empty_one_no_bytes_in_it() -> None:
    infos = header_of([Sized("a", "U8", 3), Sized("none", "F32", 0), Sized("b", "F64", 1)]).tensors
    layout = lay_out_apart(infos, first_arena=5)
    assert layout.arena_bytes == (3, 0, 8)
    assert layout.segments == (Segment(100, 103, 5, 0), Segment(103, 111, 7, 0))
    assert layout.placements == (Placement(infos[0], 5, 0), Placement(infos[1], NOWHERE, 0), Placement(infos[2], 7, 0))


@pytest.mark.parametrize(("value", "multiple", "expected"), [(0, 8, 0), (1, 8, 8), (8, 8, 8), (9, 8, 16)])
def test_rounding_up(value: int, multiple: int, expected: int) -> None:
    assert round_up(value, multiple) == expected
