"""The plan, checked by carrying it out on bytes in memory."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoints import Sized, checkpoint_of, sized_tensors
from fastload._format.checkpoint import Checkpoint
from fastload._format.index import Index
from fastload._plan.extent import Extent
from fastload._plan.layout import NOWHERE, Layout, LayoutRules, lay_out, lay_out_apart, lay_out_mapped
from fastload._plan.plan import Piece, Plan, build_plan
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from fastload._format.header import TensorInfo
    from fastload._plan.plan import LayOut

BLOCK = BLOCK_BYTES
_FILE = hashlib.shake_128(b"weights").digest(15_000_000)  # what every shard is a slice of


def by_rules(rules: LayoutRules) -> LayOut:
    def lay(infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
        return lay_out(infos, rules, first_arena=first_arena)

    return lay


def mapped(infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
    return lay_out_mapped(infos, file_bytes, first_arena=first_arena)


def apart(infos: Sequence[TensorInfo], file_bytes: int, first_arena: int) -> Layout:
    return lay_out_apart(infos, first_arena=first_arena)


ONE_ARENA = by_rules(LayoutRules(start_alignment=64, tensor_alignment=1, arena_bytes=None, own_bytes=None))
DEVICE = by_rules(LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 << 20, own_bytes=1 << 20))


def everything(name: str) -> bool:
    return True


def plan_of(checkpoint: Checkpoint, wanted: set[str] | None = None, lay: LayOut = ONE_ARENA) -> Plan:
    chosen = everything if wanted is None else wanted.__contains__
    return build_plan(checkpoint, chosen, lay, extent_bytes=2 * BLOCK)


def test_room_is_for_a_tensor_and_what_is_read_is_named() -> None:
    checkpoint = checkpoint_of([Sized("a", "U8", 9 * BLOCK)])
    begin = checkpoint.shards[0].header.tensors[0].begin
    end = begin + 6 * BLOCK + 5
    read = (((begin, begin + 5), (end - 5, end)),)

    def narrow(info: TensorInfo) -> TensorInfo:
        return info._replace(shape=(end - begin,), end=end)

    plan = build_plan(checkpoint, everything, ONE_ARENA, extent_bytes=2 * BLOCK, narrow=narrow, read=read)
    assert [extent.offset // BLOCK for extent in plan.extents] == [0, 6]
    assert plan.placements[0].info.nbytes == end - begin
    assert plan.ready_after == (1,)
    assert plan.spread == read


def test_no_tensor_wanted_means_no_read_and_no_memory() -> None:
    plan = plan_of(checkpoint_of([Sized("a", "U8", 9)]), set())
    assert (plan.extents, plan.arena_bytes, plan.placements) == ((), (), ())
    assert plan.read_bytes == plan.wanted_bytes == 0


def test_a_checkpoint_without_tensors_is_an_empty_plan() -> None:
    assert plan_of(checkpoint_of([], [])).placements == ()


def test_what_is_not_wanted_is_not_read() -> None:
    checkpoint = checkpoint_of(
        [Sized("a", "U8", BLOCK), Sized("b", "U8", 3 * BLOCK), Sized("c", "U8", BLOCK)], data_start=0
    )
    plan = plan_of(checkpoint, {"a", "c"})
    assert plan.extents == (Extent(0, 0, BLOCK), Extent(0, 4 * BLOCK, BLOCK))
    assert plan.wanted_bytes == plan.read_bytes == 2 * BLOCK


def test_a_shard_of_which_nothing_is_wanted_is_not_touched() -> None:
    plan = plan_of(checkpoint_of([Sized("a", "U8", 9)], [Sized("b", "U8", 9)]), {"b"})
    assert {extent.shard for extent in plan.extents} == {1}
    assert plan.segments[0] == ()


def test_what_the_index_does_not_name_is_left_out() -> None:
    shards = checkpoint_of([Sized("a", "U8", 9), Sized("stale", "U8", 9)]).shards
    plan = plan_of(Checkpoint(shards, Index("index", {"a": "0.safetensors"}, {})))
    assert [placement.info.name for placement in plan.placements] == ["a"]


def test_an_empty_tensor_is_placed_nowhere_and_ready_at_once() -> None:
    plan = plan_of(checkpoint_of([Sized("none", "F32", 0)]))
    assert [(p.arena, p.info.name) for p in plan.placements] == [(NOWHERE, "none")]
    assert plan.ready_after == (-1,)
    assert plan.extents == ()


def test_a_tensor_is_ready_after_the_extent_with_its_last_byte() -> None:
    tensors = [
        Sized("first", "U8", 2 * BLOCK),  # ends with extent 0
        Sized("none", "U8", 0),
        Sized("long", "U8", 2 * BLOCK + 1),  # one byte in extent 2
        Sized("same", "U8", 1),
    ]
    plan = plan_of(checkpoint_of(tensors, [Sized("next", "U8", 1)], data_start=0))
    assert len(plan.extents) == 4
    assert plan.ready_after == (0, -1, 2, 2, 3)


def test_shards_do_not_share_arenas() -> None:
    plan = plan_of(checkpoint_of([Sized("a", "U8", 9)], [Sized("b", "U8", 9)]))
    assert [placement.arena for placement in plan.placements] == [0, 1]
    assert plan.arena_bytes == (9, 9)


def test_the_header_and_unwanted_neighbours_are_cut_off() -> None:
    checkpoint = checkpoint_of([Sized("a", "U8", 10), Sized("b", "U8", 20), Sized("c", "U8", 30)])
    plan = plan_of(checkpoint, {"b"})
    assert list(plan.cut(plan.extents[0])) == [Piece(NOWHERE, 0, 110), Piece(0, 0, 20), Piece(NOWHERE, 0, 30)]


def test_a_single_unwanted_byte_is_cut_out() -> None:
    checkpoint = checkpoint_of([Sized("a", "U8", 10), Sized("b", "U8", 1), Sized("c", "U8", 30)], data_start=0)
    plan = plan_of(checkpoint, {"a", "c"})
    assert list(plan.cut(plan.extents[0])) == [Piece(0, 0, 10), Piece(NOWHERE, 0, 1), Piece(0, 64, 30)]


def bring(plan: Plan, files: list[bytes], extents: Sequence[Extent]) -> list[bytearray]:
    """The arenas after ``extents``, done by the book: an oracle that shares no code with the placers."""
    arenas = [bytearray(nbytes) for nbytes in plan.arena_bytes]
    for extent in extents:
        at = extent.offset
        for arena, offset, length in plan.cut(extent):
            assert length > 0
            if arena != NOWHERE:
                assert offset + length <= len(arenas[arena])
                arenas[arena][offset : offset + length] = files[extent.shard][at : at + length]
            at += length
        assert at == extent.end
    return arenas


LAYOUTS = st.one_of(
    st.sampled_from([ONE_ARENA, DEVICE, mapped, apart]),
    st.builds(
        LayoutRules,
        start_alignment=st.sampled_from([1, 64, 256]),
        tensor_alignment=st.sampled_from([1, 16]),
        arena_bytes=st.none() | st.integers(1000, 5_000_000),
        own_bytes=st.none() | st.integers(1, 5_000_000),
    ).map(by_rules),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shards=st.lists(sized_tensors(max_bytes=10_000_000), min_size=1, max_size=2),
    data_start=st.integers(8, 300) | st.integers(BLOCK - 9, BLOCK + 9),
    lay=LAYOUTS,
    unwanted=st.sets(st.integers(0, 23)),
    extent_blocks=st.integers(1, 3),
    rng=st.randoms(use_true_random=False),
)
def test_extents_in_any_order_bring_every_wanted_byte_to_its_tensor(
    *,
    shards: list[list[Sized]],
    data_start: int,
    lay: LayOut,
    unwanted: set[int],
    extent_blocks: int,
    rng: random.Random,
) -> None:
    named = [[t._replace(name=f"{n}.{t.name}") for t in tensors] for n, tensors in enumerate(shards)]
    names = [tensor.name for tensors in named for tensor in tensors]
    wanted = {name for number, name in enumerate(names) if number not in unwanted}
    checkpoint = checkpoint_of(*named, data_start=data_start)
    files = [_FILE[n : n + shard.header.file_bytes] for n, shard in enumerate(checkpoint.shards)]
    plan = build_plan(checkpoint, wanted.__contains__, lay, extent_bytes=extent_blocks * BLOCK)

    assert [p.info.name for p in plan.placements] == [name for name in names if name in wanted]
    arenas = bring(plan, files, rng.sample(plan.extents, len(plan.extents)))
    shard_of = {tensor.name: n for n, tensors in enumerate(named) for tensor in tensors}
    for info, arena, offset in plan.placements:
        if info.nbytes:
            stored = files[shard_of[info.name]][info.begin : info.end]
            assert arenas[arena][offset : offset + info.nbytes] == stored


@settings(max_examples=60, deadline=None)
@given(tensors=sized_tensors(max_bytes=10_000_000), extent_blocks=st.integers(1, 3))
def test_ready_after_is_the_last_extent_that_holds_a_byte(tensors: list[Sized], extent_blocks: int) -> None:
    plan = build_plan(checkpoint_of(tensors), everything, ONE_ARENA, extent_bytes=extent_blocks * BLOCK)
    for (info, _, _), ready_after in zip(plan.placements, plan.ready_after, strict=True):
        holding = [n for n, e in enumerate(plan.extents) if e.offset < info.end and info.begin < e.end and info.nbytes]
        assert ready_after == max(holding, default=-1)


def test_very_many_tensors_are_planned_in_seconds() -> None:
    """A walk per tensor over all segments or extents would take hours here, and headers may be that long."""
    count = 200_000
    checkpoint = checkpoint_of([Sized(str(n), "U8", 65) for n in range(count)])
    plan = build_plan(checkpoint, everything, DEVICE, extent_bytes=2 * BLOCK)
    pieces = sum(len(list(plan.cut(extent))) for extent in plan.extents)
    assert len(plan.placements) == count
    assert pieces >= count


@given(shards=st.lists(sized_tensors(max_bytes=30_000_000, max_count=4), max_size=6), at_once=st.integers(1, 5))
def test_interleaving_changes_the_order_and_nothing_else(shards: list[list[Sized]], at_once: int) -> None:
    plan = plan_of(checkpoint_of(*shards))
    turned = plan.interleaved(at_once)
    assert sorted(turned.extents) == sorted(plan.extents)
    assert turned.placements == plan.placements
    for shard in {extent.shard for extent in plan.extents}:
        assert [e for e in turned.extents if e.shard == shard] == [e for e in plan.extents if e.shard == shard]
    for before, after in zip(plan.ready_after, turned.ready_after, strict=True):
        assert (before, after) == (-1, -1) or plan.extents[before] == turned.extents[after]
