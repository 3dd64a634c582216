"""Bytes on their way into host memory, carried by hand: lane, buffers, fill, place, take."""

from __future__ import annotations

import copy
import gc
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastload._address_space import address_of, map_anonymous
from fastload._place.host import HostPlacer, cast_tensor
from fastload._plan.layout import LayoutRules, lay_out_apart, lay_out_mapped, round_up
from own_memory import in_child, pages_present, present_bytes
from packed_files import KIB, MIB, PAGE, File, by_rules, file_of, plan_of, stored_bytes

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from fastload._place.placer import Lane, Placer
    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan

MIXED = {
    "bytes": ("U8", [3]),
    "floats": ("F32", [2000]),
    "none": ("BF16", [4, 0]),
    "one": ("F64", []),
    "flags": ("BOOL", [5001]),
    "halves": ("BF16", [70, 100]),
    "tail": ("I64", [3]),
}


def placer_of(plan: Plan, cast: torch.dtype | None = None, slot_bytes: int = 4 * MIB) -> HostPlacer:
    return HostPlacer(plan, lambda arena: map_anonymous(plan.arena_bytes[arena]), slot_bytes=slot_bytes, cast=cast)


def fill(file: File, extent: Extent, buffers: Sequence[memoryview]) -> None:
    at = extent.offset
    for buffer in buffers:
        data = file.stored[at : at + len(buffer)]
        buffer[: len(data)] = data
        at += len(buffer)


def carry(file: File, plan: Plan, lane: Lane, extents: Sequence[Extent], alignment_bytes: int = 1) -> None:
    for extent in extents:
        buffers = lane.buffers_for(extent, alignment_bytes)
        fill(file, extent, buffers)
        lane.place(lambda: None)


def take_all(file: File, plan: Plan, placer: Placer, alignment_bytes: int = 1) -> list[torch.Tensor]:
    lane = placer.open_lane()
    carry(file, plan, lane, plan.extents, alignment_bytes)
    lane.close()
    placer.catch_up()
    tensors = [placer.take(number) for number in range(len(plan.placements))]
    placer.finish()
    return tensors


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("alignment_bytes", [1, 512, PAGE])
@pytest.mark.parametrize("extent_bytes", [PAGE, 3 * PAGE, 4 * MIB])
def test_every_tensor_holds_its_bytes(alignment_bytes: int, extent_bytes: int) -> None:
    file = file_of(MIXED)
    plan = plan_of(file, extent_bytes=extent_bytes)
    tensors = take_all(file, plan, placer_of(plan), alignment_bytes)
    for number, (tensor, placement) in enumerate(zip(tensors, plan.placements, strict=True)):
        assert raw(tensor) == stored_bytes(file, plan, number), placement.info.name
        assert tensor.shape == placement.info.shape
        assert tensor.data_ptr() % placement.info.dtype.alignment_bytes == 0


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["U8", "F32", "BF16", "F64", "F8_E4M3"]), st.integers(0, 9000)), max_size=8),
    st.randoms(use_true_random=False),
)
def test_lanes_may_bring_extents_in_any_order_and_for_any_reader(
    tensors: list[tuple[str, int]], rng: random.Random
) -> None:
    file = file_of({f"t{n}": (dtype, [count]) for n, (dtype, count) in enumerate(tensors)})
    rules = LayoutRules(
        start_alignment=64, tensor_alignment=1, arena_bytes=20 * KIB, own_bytes=rng.choice([None, 8 * KIB])
    )
    plan = plan_of(file, by_rules(rules))
    placer = placer_of(plan, slot_bytes=PAGE)
    lanes = [placer.open_lane() for _ in range(3)]
    for extent in rng.sample(plan.extents, len(plan.extents)):
        carry(file, plan, rng.choice(lanes), [extent], rng.choice([1, PAGE]))
    order = rng.sample(range(len(plan.placements)), len(plan.placements))
    taken = {number: placer.take(number) for number in order}
    assert all(raw(tensor) == stored_bytes(file, plan, number) for number, tensor in taken.items())


def test_lanes_in_threads_do_not_meet() -> None:
    file = file_of({f"t{n}": ("U8", [100_001]) for n in range(40)})
    plan = plan_of(file)
    placer = placer_of(plan)

    def work(extents: Sequence[Extent]) -> None:
        lane = placer.open_lane()
        carry(file, plan, lane, extents, PAGE)
        lane.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [plan.extents[n::8] for n in range(8)]))
    assert all(raw(placer.take(n)) == stored_bytes(file, plan, n) for n in range(len(plan.placements)))
    assert placer.staging_bytes == 8 * 4 * MIB


def test_a_lane_keeps_its_slot_to_itself_and_gives_it_back() -> None:
    """O_DIRECT writes to it, which a fork must not share (see map_staging)."""
    file = file_of(MIXED)
    plan = plan_of(file)
    lane = placer_of(plan, slot_bytes=64 * MIB).open_lane()
    (buffer,) = lane.buffers_for(plan.extents[0], PAGE)
    address = address_of(buffer)
    assert in_child(lambda: pages_present(address, PAGE) is None)
    del buffer
    lane.close()
    assert pages_present(address, 64 * MIB) is None


def test_without_alignment_bytes_go_straight_into_place() -> None:
    file = file_of({"a": ("U8", [10 * PAGE])})
    plan = plan_of(file)
    arena = map_anonymous(plan.arena_bytes[0])
    lane = HostPlacer(plan, lambda _: arena, slot_bytes=PAGE, cast=None).open_lane()
    (buffer,) = lane.buffers_for(plan.extents[1], 1)
    assert address_of(arena) <= address_of(buffer) < address_of(arena) + len(arena)


@pytest.mark.parametrize("alignment_bytes", [512, PAGE, 64 * KIB])
def test_with_alignment_there_is_one_buffer_aligned_in_address_and_length(alignment_bytes: int) -> None:
    file = file_of(MIXED)
    plan = plan_of(file, extent_bytes=4 * MIB)
    (buffer,) = placer_of(plan).open_lane().buffers_for(plan.extents[0], alignment_bytes)
    assert address_of(buffer) % alignment_bytes == 0
    assert len(buffer) == round_up(len(file.stored), alignment_bytes)


def test_bytes_that_nobody_wants_go_nowhere() -> None:
    file = file_of({"a": ("U8", [100]), "unwanted": ("U8", [100]), "b": ("U8", [100])})
    whole = plan_of(file)
    plan = plan_of(file, lambda infos, _, first: lay_out_apart([infos[0], infos[2]], first_arena=first))
    assert len(whole.placements) == len(plan.placements) + 1
    placer = placer_of(plan)
    lane = placer.open_lane()
    buffers = lane.buffers_for(plan.extents[0], 1)
    assert [len(buffer) for buffer in buffers[1:]] == [100, 100, 100]
    fill(file, plan.extents[0], buffers)
    lane.place(lambda: None)
    assert [raw(placer.take(n)) for n in range(2)] == [stored_bytes(file, plan, n) for n in range(2)]


def test_each_tensor_is_saved_copied_and_resized_by_itself() -> None:
    file = file_of({"large": ("U8", [3 * MIB]), "small": ("F32", [10]), "also": ("F32", [10])})
    plan = plan_of(file, extent_bytes=4 * MIB)
    large, small, also = take_all(file, plan, placer_of(plan))
    assert small.untyped_storage().nbytes() == 40
    saved = io.BytesIO()
    torch.save(small, saved)
    assert saved.tell() < 4 * KIB
    saved.seek(0)
    assert raw(torch.load(saved)) == stored_bytes(file, plan, 1)
    assert raw(copy.deepcopy(small)) == stored_bytes(file, plan, 1)
    small.resize_(0)
    with pytest.raises(RuntimeError, match="not resizable"):  # better than freeing what others lie in
        large.untyped_storage().resize_(0)
    del large
    assert raw(also) == stored_bytes(file, plan, 2)


def test_a_large_tensor_gives_its_pages_back_while_its_neighbours_live() -> None:
    file = file_of({"a": ("U8", [10]), "large": ("U8", [8 * MIB]), "b": ("U8", [10])})
    plan = plan_of(file, extent_bytes=4 * MIB)
    arena = map_anonymous(plan.arena_bytes[0])
    first, large, last = take_all(file, plan, HostPlacer(plan, lambda _: arena, slot_bytes=MIB * 4, cast=None))
    row = large[-5:]
    del large
    assert present_bytes(arena) >= 8 * MIB
    assert bytes(row.tolist()) == stored_bytes(file, plan, 1)[-5:]
    del row
    assert present_bytes(arena) <= 2 * PAGE
    assert raw(first) == stored_bytes(file, plan, 0)
    assert raw(last) == stored_bytes(file, plan, 2)


def test_the_arena_goes_with_its_last_tensor() -> None:
    file = file_of({"a": ("U8", [20 * MIB]), "b": ("U8", [10])})
    plan = plan_of(file, extent_bytes=4 * MIB)
    placer = placer_of(plan)
    first, last = take_all(file, plan, placer)
    begin = first.data_ptr() + 2 * MIB
    del first
    assert pages_present(begin, 16 * MIB) is not None
    del last
    gc.collect()
    assert pages_present(begin, 16 * MIB) is None


def test_misaligned_mappings_are_copied_and_aligned_ones_are_not() -> None:
    file = file_of({"pad": ("U8", [1]), "a": ("F32", [1000]), "large": ("F64", [MIB // 4]), "bytes": ("U8", [9])})
    plan = plan_of(file, lambda infos, size, first: lay_out_mapped(infos, size, first_arena=first))
    mapping = map_anonymous(len(file.stored))
    mapping[:] = file.stored
    placer = HostPlacer(plan, lambda _: mapping, slot_bytes=PAGE, cast=None)
    tensors = [placer.take(number) for number in range(len(plan.placements))]
    for number, tensor in enumerate(tensors):
        assert raw(tensor) == stored_bytes(file, plan, number)
        assert tensor.data_ptr() % tensor.itemsize == 0
    inside = [address_of(mapping) <= tensor.data_ptr() < address_of(mapping) + len(mapping) for tensor in tensors]
    misaligned = [p.offset % p.info.dtype.alignment_bytes > 0 for p in plan.placements]
    assert inside == [not each for each in misaligned]
    assert misaligned[1] or misaligned[2]


def test_tensors_apart_are_read_straight_into_memory_that_was_there() -> None:
    file = file_of({"a": ("F32", [30]), "none": ("F32", [0]), "b": ("U8", [5])})
    plan = plan_of(file, lambda infos, _, first: lay_out_apart(infos, first_arena=first))
    own = {0: torch.zeros(30), 2: torch.zeros(5, dtype=torch.uint8)}
    memory = {n: t.view(torch.uint8).numpy().data for n, t in own.items()}
    tensors = take_all(file, plan, HostPlacer(plan, memory.__getitem__, slot_bytes=PAGE, cast=None))
    assert raw(own[0]) == stored_bytes(file, plan, 0)
    assert raw(own[2]) == stored_bytes(file, plan, 2)
    assert tensors[0].data_ptr() == own[0].data_ptr()
    assert tensors[1].shape == (0,)


CASTS: list[Callable[[torch.Tensor], torch.Tensor]] = [torch.Tensor.bfloat16, torch.Tensor.half, torch.Tensor.double]


@pytest.mark.parametrize("cast", CASTS)
def test_floats_are_cast_as_torch_casts_them_and_the_rest_is_left(cast: Callable[[torch.Tensor], torch.Tensor]) -> None:
    file = file_of({"a": ("F32", [500_000]), "b": ("F16", [7]), "n": ("I64", [3]), "none": ("F32", [0, 3])})
    plan = plan_of(file, extent_bytes=4 * MIB)
    stored = take_all(file, plan, placer_of(plan))
    target = cast(torch.zeros(1)).dtype
    found = take_all(file, plan, placer_of(plan, cast=target))
    for tensor, expected in zip(found, [cast(stored[0]), cast(stored[1]), stored[2], cast(stored[3])], strict=True):
        assert (tensor.dtype, tensor.shape) == (expected.dtype, expected.shape)
        assert raw(tensor) == raw(expected)


def test_a_large_cast_gives_the_stored_pages_back() -> None:
    file = file_of({"a": ("F32", [2 * MIB]), "b": ("I64", [1])})
    plan = plan_of(file, extent_bytes=4 * MIB)
    arena = map_anonymous(plan.arena_bytes[0])
    kept = take_all(file, plan, HostPlacer(plan, lambda _: arena, slot_bytes=4 * MIB, cast=torch.bfloat16))
    assert [tensor.dtype for tensor in kept] == [torch.bfloat16, torch.int64]
    assert present_bytes(arena) <= 2 * PAGE


def test_a_cast_to_the_same_dtype_copies_nothing() -> None:
    tensor = torch.zeros(MIB)
    assert cast_tensor(tensor, torch.float32) is tensor


def test_a_cast_keeps_the_shape() -> None:
    tensor = torch.randn(3, 0, 2)
    assert cast_tensor(tensor, torch.bfloat16).shape == (3, 0, 2)
    wide = torch.randn(4, 300_000)
    assert torch.equal(cast_tensor(wide, torch.bfloat16), wide.bfloat16())


def test_pages_are_made_ahead_and_nothing_is_written_to_them() -> None:
    """By a thread beside those that copy: what these have brought already stays."""
    file = file_of({"a": ("U8", [3 * MIB]), "b": ("U8", [20 * MIB])})
    plan = plan_of(file)
    placer = placer_of(plan)
    lane = placer.open_lane()
    carry(file, plan, lane, plan.extents[:2])
    steps = sum(1 for _ in placer.make_pages())
    assert steps == sum(-(-nbytes // (8 * MIB)) for nbytes in plan.arena_bytes)
    carry(file, plan, lane, plan.extents[2:])
    for number in range(len(plan.placements)):
        assert placer.take(number).numpy().tobytes() == stored_bytes(file, plan, number)


def test_pages_that_were_made_are_there() -> None:
    plan = plan_of(file_of({"a": ("U8", [24 * MIB])}))
    placer = placer_of(plan)
    memory = placer._arenas.get(0)
    assert present_bytes(memory) == 0
    making = placer.make_pages()
    next(making)
    assert 0 < present_bytes(memory) < 24 * MIB, "some with each step"
    list(making)
    assert present_bytes(memory) == len(memory)


def test_no_pages_are_made_of_what_has_been_taken() -> None:
    """It would be memory that nobody has."""
    plan = plan_of(file_of({"a": ("U8", [2 * MIB])}))
    placer = placer_of(plan)
    placer.take(0)
    assert list(placer.make_pages()) == []
    assert not placer._arenas._made


def test_where_the_kernel_makes_no_pages_they_come_when_they_are_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(memory: memoryview) -> bool:
        asked.append(len(memory))
        return False

    monkeypatch.setattr("fastload._place.host.make_pages", refuse)
    placer = placer_of(plan_of(file_of({"a": ("U8", [24 * MIB])})))
    assert list(placer.make_pages()) == []
    assert len(asked) == 1
