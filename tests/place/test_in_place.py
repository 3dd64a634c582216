"""Direct reads straight into the arenas: which of them, that the bytes are right, and that no child shares them."""

from __future__ import annotations

import gc
import mmap
import weakref
from typing import TYPE_CHECKING

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastload._address_space import address_of
from fastload._place.in_place import InPlacePlacer
from fastload._place.memory import map_withheld
from fastload._plan.layout import NOWHERE, LayoutRules, lay_out
from own_memory import in_child, pages_present
from packed_files import KIB, MIB, PAGE, by_rules, file_of, plan_of, stored_bytes

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from fastload._format.header import TensorInfo
    from fastload._place.placer import Lane
    from fastload._plan.extent import Extent
    from fastload._plan.layout import Layout
    from fastload._plan.plan import Plan
    from packed_files import File

IN_PLACE = by_rules(
    LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=None, own_bytes=None, read_alignment=PAGE)
)
MIXED = {"a": ("F32", [3000]), "b": ("BF16", [4001]), "c": ("U8", [5]), "d": ("F64", [700]), "e": ("U8", [9999])}
"""The fourth is misaligned in the file, and begins a segment that is not where reads would like it."""
EVEN = {"a": ("U8", [12_000]), "b": ("F8_E4M3", [8002]), "c": ("BOOL", [9999])}


def placer_of(plan: Plan) -> InPlacePlacer:
    return InPlacePlacer(plan, slot_bytes=4 * MIB)


def is_in_arena(placer: InPlacePlacer, buffer: memoryview) -> bool:
    memory = placer._arenas.get(0)
    return address_of(memory) <= address_of(buffer) < address_of(memory) + len(memory)


def carry(file: File, lane: Lane, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
    """Read as O_DIRECT does: whole pages, and past the end of the file whatever the disk has there."""
    buffers = lane.buffers_for(extent, alignment_bytes)
    at = extent.offset
    for buffer in buffers:
        assert alignment_bytes == 1 or (address_of(buffer) % alignment_bytes, len(buffer) % alignment_bytes) == (0, 0)
        buffer[:] = file.stored[at : at + len(buffer)].ljust(len(buffer), b"\xee")
        at += len(buffer)
    lane.place(lambda: None)
    return buffers


def read_all(file: File, plan: Plan) -> tuple[InPlacePlacer, Lane]:
    """What holds all of ``file``, and the lane by which it came."""
    placer = placer_of(plan)
    lane = placer.open_lane()
    for extent in plan.extents:
        carry(file, lane, extent, PAGE)
    return placer, lane


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def test_all_but_the_edges_goes_straight_into_place() -> None:
    file = file_of(EVEN)
    plan = plan_of(file, IN_PLACE)
    placer = placer_of(plan)
    lane = placer.open_lane()
    in_arena = [is_in_arena(placer, carry(file, lane, extent, PAGE)[0]) for extent in plan.extents]
    assert in_arena == [False, *[True] * (len(plan.extents) - 1)]  # the first has the header


def test_behind_a_misaligned_tensor_bytes_are_copied() -> None:
    file = file_of(MIXED)
    plan = plan_of(file, IN_PLACE)
    placer = placer_of(plan)
    lane = placer.open_lane()
    parted = plan.segments[0][1].begin
    for extent in plan.extents[1:]:
        (buffer,) = carry(file, lane, extent, PAGE)
        assert is_in_arena(placer, buffer) is (extent.end <= parted)
    assert any(extent.offset > parted for extent in plan.extents)


def test_where_more_alignment_is_asked_for_bytes_are_copied() -> None:
    file = file_of({f"a tensor with a long name, {n}": ("U8", [200 * KIB]) for n in range(60)})
    plan = plan_of(file, IN_PLACE, extent_bytes=MIB)
    assert PAGE < plan.segments[0][0].begin < 2 * PAGE  # so the arena's border is the second page of the file
    placer = placer_of(plan)
    lane = placer.open_lane()
    for extent in plan.extents:
        (buffer,) = carry(file, lane, extent, 64 * KIB)
        assert not is_in_arena(placer, buffer)


def test_what_is_read_past_the_end_of_the_file_meets_nobody() -> None:
    """Nor where another tensor lies behind it in memory, as a misaligned one's segment might."""
    file = file_of(EVEN)
    header = file.checkpoint.shards[0].header.tensors
    layout = lay_out(
        header,
        LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=None, own_bytes=None, read_alignment=PAGE),
        first_arena=0,
    )
    end = layout.arena_bytes[0]
    more = layout.__class__((end + 100,), layout.segments, layout.placements)
    plan = plan_of(file, lambda *_: more)
    placer = placer_of(plan)
    behind = placer._arenas.get(0)[end : end + 100]
    behind[:] = bytes(100)
    lane = placer.open_lane()
    for extent in plan.extents:
        carry(file, lane, extent, PAGE)
    assert bytes(behind) == bytes(100)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["U8", "F32", "BF16", "F64"]), st.integers(0, 9000)), max_size=8),
    st.sets(st.integers(0, 7)),
    st.sampled_from([PAGE, 3 * PAGE, MIB]),
    st.randoms(use_true_random=False),
)
def test_every_tensor_holds_its_bytes(
    tensors: list[tuple[str, int]], unwanted: set[int], extent_bytes: int, rng: random.Random
) -> None:
    file = file_of({f"t{n}": (dtype, [count]) for n, (dtype, count) in enumerate(tensors)})

    def lay(infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        return IN_PLACE([info for n, info in enumerate(infos) if n not in unwanted], file_bytes, first_arena)

    plan = plan_of(file, lay, extent_bytes=extent_bytes)
    placer = placer_of(plan)
    lanes = [placer.open_lane() for _ in range(3)]
    for extent in rng.sample(plan.extents, len(plan.extents)):
        carry(file, rng.choice(lanes), extent, rng.choice([1, 512, PAGE]))
    for number, placement in enumerate(plan.placements):
        tensor = placer.take(number)
        assert raw(tensor) == stored_bytes(file, plan, number), placement.info.name
        assert tensor.data_ptr() % placement.info.dtype.alignment_bytes == 0


def test_a_child_that_is_forked_meanwhile_has_no_part_of_it_and_one_forked_later_has_all() -> None:
    """O_DIRECT and fork(2) do not go together on private pages (open(2), NOTES)."""
    file = file_of({"a": ("U8", [3 * MIB])})
    plan = plan_of(file, IN_PLACE, extent_bytes=MIB)
    placer, _lane = read_all(file, plan)
    tensor = placer.take(0)
    address = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    assert in_child(lambda: pages_present(address, MIB) == [False] * (MIB // mmap.PAGESIZE))
    placer.finish()
    assert in_child(lambda: bool(tensor[-1] == file.stored[-1]))


def test_a_child_that_was_forked_meanwhile_may_let_go_of_what_it_has_inherited() -> None:
    """What is no mapping of its own there could have become another one's, which would go in its place."""
    memory = map_withheld(64 * MIB)

    def replace() -> bool:
        nonlocal memory
        others = [mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE) for _ in range(4)]
        memory = memoryview(b"")
        return all(other[-1] == 0 for other in others)

    assert in_child(replace)


def test_memory_goes_with_its_last_tensor() -> None:
    file = file_of({"a": ("U8", [3 * MIB]), "b": ("U8", [MIB])})
    plan = plan_of(file, IN_PLACE, extent_bytes=MIB)
    assert all(placement.arena != NOWHERE for placement in plan.placements)
    placer, _lane = read_all(file, plan)
    tensors = [placer.take(number) for number in range(2)]
    placer.finish()
    address = tensors[0].data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    assert pages_present(address, MIB) is not None
    del tensors
    assert pages_present(address, MIB) is None


def test_memory_of_a_load_that_failed_goes_without_the_collector() -> None:
    file = file_of({"a": ("U8", [3 * MIB])})
    plan = plan_of(file, IN_PLACE, extent_bytes=MIB)
    placer = placer_of(plan)
    lane = placer.open_lane()
    carry(file, lane, plan.extents[1], PAGE)
    address = address_of(placer._arenas.get(0))
    gc.collect()
    gc.disable()
    try:
        del lane, placer
        assert pages_present(address, MIB) is None
    finally:
        gc.enable()


def test_the_only_tensor_of_a_shard_needs_nobody_to_give_its_pages_back() -> None:
    file = file_of({"a": ("U8", [3 * MIB])})
    plan = plan_of(file, IN_PLACE, extent_bytes=MIB)
    placer, _lane = read_all(file, plan)
    before = len(weakref.finalize._registry)  # type: ignore[attr-defined]
    tensor = placer.take(0)
    assert len(weakref.finalize._registry) == before  # type: ignore[attr-defined]
    assert len(tensor) == 3 * MIB
