"""Bytes on their way onto a device: a pretended one that does everything late, and a real one where there is one."""

from __future__ import annotations

import gc
import random
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastload._budget import Headroom
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on, device_headroom, host_bytes
from fastload._plan.layout import NOWHERE, LayoutRules
from fastload.errors import MemoryBudgetError
from packed_files import KIB, MIB, PAGE, File, by_rules, file_of, plan_of, stored_bytes
from pretended_cuda import DEVICE, OTHER, Machine, NoHaste, Stream, alias, move, pretended_cuda, range_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastload._place.cuda_lane import CudaLane
    from fastload._plan.extent import Extent
    from fastload._plan.plan import Plan

ON_DEVICE = by_rules(LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 << 20, own_bytes=1 << 20))
SMALL = by_rules(LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=2 * PAGE, own_bytes=PAGE))
MIXED = {
    "bytes": ("U8", [3]),
    "floats": ("F32", [2000]),
    "none": ("BF16", [4, 0]),
    "one": ("F64", []),
    "flags": ("BOOL", [5001]),
    "halves": ("BF16", [70, 100]),
    "tail": ("I64", [3]),
}


def placer_of(
    machine: Machine,
    plan: Plan,
    cast: torch.dtype | None = None,
    slot_bytes: int = PAGE,
    host_above_bytes: int | None = None,
) -> CudaPlacer:
    large = [
        n for n, nbytes in enumerate(plan.arena_bytes) if host_above_bytes is not None and nbytes > host_above_bytes
    ]

    def allocate(arena: int) -> torch.Tensor:
        nbytes = plan.arena_bytes[arena]
        return host_bytes(nbytes) if arena in large else allocate_on(DEVICE, nbytes)

    return CudaPlacer(plan, Supply(allocate, frozenset(large)), DEVICE, slot_bytes=slot_bytes, cast=cast)


def nothing() -> None:
    """Nobody waits."""


def bring(file: File, extent: Extent, lane: CudaLane) -> None:
    (buffer,) = lane.buffers_for(extent, PAGE)
    buffer[: extent.length] = file.stored[extent.offset : extent.offset + extent.length]
    lane.place(nothing)


class Consumer:
    """Takes what is ready and uses it at once: a kernel on its own stream copies it to where the test can look."""

    def __init__(self, machine: Machine, placer: CudaPlacer, plan: Plan) -> None:
        self._machine = machine
        self._placer = placer
        self._plan = plan
        self._next = 0
        self.used: list[tuple[torch.Tensor, torch.Tensor]] = []

    def follow(self, placed: int) -> None:
        """Take all tensors that are ready when the extents below ``placed`` are."""
        while self._next < len(self._plan.placements) and self._plan.ready_after[self._next] < placed:
            self._placer.catch_up()
            tensor = self._placer.take(self._next)
            result = torch.empty(tensor.nbytes, dtype=torch.uint8)
            if tensor.nbytes:
                of, to = range_of(tensor), range_of(result)
                if self._plan.placements[self._next].arena in self._placer._on_host:
                    move(to, of)  # whoever has host memory reads it at once
                else:
                    self._machine.current.submit(partial(move, to, of), of, to)
            self.used.append((result, torch.empty(0, dtype=tensor.dtype)))
            self._next += 1


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    lane_count=st.integers(1, 3),
    wanders=st.booleans(),
    cast=st.sampled_from([None, torch.float64]),
    host_above_bytes=st.sampled_from([None, PAGE]),
    sizes=st.lists(st.integers(0, 3 * PAGE) | st.sampled_from([0, PAGE, 2 * PAGE]), min_size=1, max_size=12),
)
def test_no_order_that_streams_allow_delivers_a_wrong_byte(
    seed: int,
    lane_count: int,
    *,
    wanders: bool,
    cast: torch.dtype | None,
    host_above_bytes: int | None,
    sizes: list[int],
) -> None:
    rng = random.Random(seed)  # noqa: S311 - a schedule
    file = file_of({f"t{n}": ("F32", [size // 4]) for n, size in enumerate(sizes)})
    plan = plan_of(file, SMALL)
    with pytest.MonkeyPatch.context() as monkeypatch, pretended_cuda(monkeypatch, rng) as machine:
        other = Stream(machine)
        placer = placer_of(machine, plan, cast, host_above_bytes=None if cast else host_above_bytes)
        consumer = Consumer(machine, placer, plan)
        lanes = [placer.open_lane() for _ in range(lane_count)]
        for number, extent in enumerate(plan.extents):
            bring(file, extent, rng.choice(lanes))
            with machine.on(other if wanders and rng.random() < 0.5 else machine.current):
                consumer.follow(number + 1)
        for lane in lanes:
            lane.close()
        placer.finish()
        machine.run_all()
        assert machine.registered == {}
    for number, (used, like) in enumerate(consumer.used):
        stored = torch.frombuffer(bytearray(stored_bytes(file, plan, number) or b"\0" * 4), dtype=torch.float32)
        expected = stored[: sizes[number] // 4].to(cast or torch.float32)
        assert used.numpy().tobytes() == expected.numpy().tobytes()
        assert like.dtype == expected.dtype
    assert len(consumer.used) == len(sizes)


def test_memory_that_the_callers_stream_still_reads_is_not_written(machine: Machine) -> None:
    """The allocator gives out what was freed while a kernel that reads it is still queued: that kernel comes first."""
    file = file_of({"a": ("U8", [PAGE])})
    plan = plan_of(file, SMALL)
    for seed in range(20):
        machine.reseed(seed)
        before = allocate_on(DEVICE, PAGE)
        machine.run_all()
        alias(range_of(before)).fill_(7)
        result = torch.empty(PAGE, dtype=torch.uint8)
        of, to = range_of(before), range_of(result)
        machine.current.submit(partial(move, to, of), of, to)
        del before
        placer = placer_of(machine, plan, slot_bytes=2 * PAGE)
        lane = placer.open_lane()
        for extent in plan.extents:
            bring(file, extent, lane)
        lane.close()
        assert range_of(placer.take(0)) == of
        machine.run_all()
        assert bytes(result.tolist()) == b"\7" * PAGE


def test_memory_that_another_stream_still_reads_is_not_written(machine: Machine) -> None:
    """The caller takes a tensor under another stream than the one the load began with, uses it there and drops it."""
    file = file_of({"a": ("U8", [PAGE]), "b": ("U8", [PAGE])})
    plan = plan_of(file, SMALL, extent_bytes=512)
    machine._rng = NoHaste()
    placer = placer_of(machine, plan, slot_bytes=512)
    consumer = Consumer(machine, placer, plan)
    lane = placer.open_lane()
    other = Stream(machine)  # the last one made is the last to run
    for number, extent in enumerate(plan.extents):
        bring(file, extent, lane)
        with machine.on(other):
            consumer.follow(number + 1)
    lane.close()
    machine.run_all()
    assert [bytes(used.tolist()) for used, _ in consumer.used] == [stored_bytes(file, plan, n) for n in range(2)]


def test_a_caller_who_goes_over_to_another_stream_finds_the_bytes(machine: Machine) -> None:
    """Two tensors of one extent, taken under two streams: the second stream has to wait as well."""
    file = file_of({"a": ("U8", [200]), "b": ("U8", [200])})
    plan = plan_of(file, SMALL)
    for seed in range(20):
        machine.reseed(seed)
        placer = placer_of(machine, plan)
        lane = placer.open_lane()
        for extent in plan.extents:
            bring(file, extent, lane)
        placer.catch_up()
        taken = [placer.take(0)]
        result = torch.empty(200, dtype=torch.uint8)
        with machine.on(Stream(machine)):
            taken.append(placer.take(1))
            of, to = range_of(taken[1]), range_of(result)
            machine.current.submit(partial(move, to, of), of, to)
        machine.run_all()
        lane.close()
        assert bytes(result.tolist()) == stored_bytes(file, plan, 1)


@pytest.mark.parametrize("cast", [None, torch.float64])
def test_a_caller_whose_current_device_is_another_one_finds_the_bytes(
    machine: Machine, cast: torch.dtype | None
) -> None:
    """To the driver the default stream is that of the current device: nobody waited on the one that was loaded to."""
    file = file_of({"a": ("F32", [200]), "b": ("F32", [200])})
    plan = plan_of(file, SMALL)
    for seed in range(20):
        machine.reseed(seed)
        machine.device = OTHER.index
        placer = placer_of(machine, plan, cast)
        with machine.on_device(DEVICE):  # as on a thread of its own
            lane = placer.open_lane()
            for extent in plan.extents:
                bring(file, extent, lane)
        consumer = Consumer(machine, placer, plan)
        consumer.follow(len(plan.extents))
        machine.run_all()
        assert machine.device == OTHER.index
        with machine.on_device(DEVICE):
            lane.close()
        placer.finish()
        expected = [torch.frombuffer(bytearray(stored_bytes(file, plan, n)), dtype=torch.float32) for n in range(2)]
        for (used, _), tensor in zip(consumer.used, expected, strict=True):
            assert used.numpy().tobytes() == tensor.to(cast or torch.float32).numpy().tobytes()


def test_memory_that_nobody_took_is_given_back_with_the_placer(machine: Machine) -> None:
    """At once, and not when the collector comes by: it may be most of the device."""
    file = file_of({"a": ("U8", [PAGE]), "b": ("U8", [PAGE])})
    plan = plan_of(file, SMALL)
    gc.disable()
    try:
        placer = placer_of(machine, plan, slot_bytes=2 * PAGE)
        list(placer.make_ahead())
        lane = placer.open_lane()
        for extent in plan.extents:
            bring(file, extent, lane)
        lane.close()
        del placer, lane
        assert machine.live_bytes == 0
    finally:
        gc.enable()


def test_what_a_stream_allocates_stays_out_of_the_callers_pool_and_goes_with_it(machine: Machine) -> None:
    """VLLM loads inside a pool that its sleep mode discards: what it makes is in there, and nothing of a load is.

    All of it comes from torch's allocator all the same, so that what a caller keeps is its memory like any other.
    """
    file = file_of({"a": ("U8", [PAGE]), "none": ("U8", [0]), "b": ("U8", [PAGE])})
    plan = plan_of(file, SMALL)
    placer = placer_of(machine, plan, slot_bytes=2 * PAGE)

    def read() -> None:
        with machine:  # which counts by thread
            lane = placer.open_lane()
            for extent in plan.extents:
                bring(file, extent, lane)
            lane.close()

    with machine.pool() as pool, ThreadPoolExecutor(1) as reading:
        parameter = torch.empty(PAGE, dtype=torch.uint8, device=DEVICE)
        reading.submit(read).result()
        tensors = [placer.take(number) for number in range(len(plan.placements))]
        placer.finish()
        assert pool.has(parameter)
        assert not any(pool.has(tensor) for tensor in tensors)
        assert pool.begins == {parameter.data_ptr()}
    assert (machine.live_bytes, machine.plain) == (3 * PAGE, {})
    del tensors
    assert machine.live_bytes == PAGE


@pytest.mark.parametrize("ahead", [False, True])
def test_memory_made_ahead_is_the_same(machine: Machine, *, ahead: bool) -> None:
    file = file_of({f"t{n}": ("U8", [PAGE]) for n in range(80)})
    plan = plan_of(file, SMALL)
    placer = placer_of(machine, plan)
    lane = placer.open_lane()
    half = len(plan.extents) // 2
    for extent in plan.extents[:half]:
        bring(file, extent, lane)
    if ahead:
        list(placer.make_ahead())
    for extent in plan.extents[half:]:
        bring(file, extent, lane)
    lane.close()
    machine.run_all()
    for number in range(80):
        assert bytes(placer.take(number).tolist()) == stored_bytes(file, plan, number)


def test_large_tensors_own_their_storage_and_small_ones_share_aligned(machine: Machine) -> None:
    file = file_of({**MIXED, "large": ("BF16", [MIB // 2]), "after": ("U8", [5])})
    plan = plan_of(file, ON_DEVICE, extent_bytes=4 * MIB)
    placer = placer_of(machine, plan, slot_bytes=4 * MIB)
    lane = placer.open_lane()
    for extent in plan.extents:
        bring(file, extent, lane)
    lane.close()
    tensors = {p.info.name: placer.take(n) for n, p in enumerate(plan.placements)}
    assert tensors["large"].untyped_storage().nbytes() == MIB
    assert len({t.untyped_storage().data_ptr() for n, t in tensors.items() if n not in {"large", "none", "after"}}) == 1
    for segments in plan.segments:
        assert all(segment.offset % 256 == 0 for segment in segments)
    for number, placement in enumerate(plan.placements):
        tensor = tensors[placement.info.name]
        assert tensor.data_ptr() % 16 == 0
        assert tensor.shape == placement.info.shape
        assert tensor.flatten().view(torch.uint8).numpy().tobytes() == stored_bytes(file, plan, number)


def test_a_lane_has_two_pinned_slots_and_one_on_the_device(machine: Machine) -> None:
    plan = plan_of(file_of(MIXED), SMALL)
    placer = placer_of(machine, plan)
    lane = placer.open_lane()
    assert sorted(machine.registered.values()) == [PAGE + 32] * 2, "each with room for the digest of its block"
    assert placer.staging_bytes == 2 * PAGE
    assert machine.live_bytes == PAGE
    lane.close()


def test_one_slot_is_filled_while_the_other_is_copied_from(machine: Machine) -> None:
    file = file_of(MIXED)
    plan = plan_of(file, SMALL)
    machine._rng = NoHaste()
    lane = placer_of(machine, plan).open_lane()
    (first,) = lane.buffers_for(plan.extents[0], PAGE)
    place = range_of(torch.frombuffer(first, dtype=torch.uint8))
    lane.place(nothing)
    (second,) = lane.buffers_for(plan.extents[1], PAGE)
    assert machine.pending(place)
    assert not place.meets(range_of(torch.frombuffer(second, dtype=torch.uint8)))
    lane.place(nothing)
    lane.buffers_for(plan.extents[2], PAGE)
    assert not machine.pending(place)
    lane.close()


def test_closing_gives_pinned_and_device_memory_back_and_may_be_repeated(machine: Machine) -> None:
    file = file_of(MIXED)
    plan = plan_of(file, SMALL)
    placer = placer_of(machine, plan)
    lane = placer.open_lane()
    for extent in plan.extents[:3]:
        bring(file, extent, lane)
    arenas = machine.live_bytes - PAGE
    lane.close()
    lane.close()
    assert machine.registered == {}
    assert machine.live_bytes == arenas  # although lane and placer are still there


@pytest.mark.parametrize("refused", [(True,), (False, True), (True, True)])
def test_a_refusal_to_pin_halves_the_staging_and_nothing_else(machine: Machine, refused: tuple[bool, ...]) -> None:
    """The refusal also stays behind as the thread's last error, which the next copy on the device would report."""
    file = file_of(MIXED)
    plan = plan_of(file, SMALL)
    for seed in range(60):
        machine.reseed(seed)
        machine.refuse_to_pin(*refused)
        home = Stream(machine)
        with machine.on(home):
            placer = placer_of(machine, plan)
        lane = placer.open_lane()
        assert placer.staging_bytes == PAGE
        assert len(machine.registered) == (0 if refused[0] else 1)
        for extent in plan.extents:
            bring(file, extent, lane)
        lane.close()
        machine.run_all()
        machine.register_answers.clear()
        with machine.on(home):
            tensors = [placer.take(number) for number in range(len(plan.placements))]
        for number, tensor in enumerate(tensors):
            assert tensor.flatten().view(torch.uint8).numpy().tobytes() == stored_bytes(file, plan, number)
        assert machine.registered == {}


def test_closing_after_an_error_waits_for_copies_under_way(machine: Machine) -> None:
    """The second arena cannot be had: by then copies into the first are queued, whose memory will soon be others'."""
    file = file_of({"a": ("U8", [PAGE]), "b": ("U8", [PAGE])})
    plan = plan_of(file, SMALL, extent_bytes=4 * PAGE)
    assert len(plan.arena_bytes) == 2
    for seed in range(20):
        machine.reseed(seed)

        def allocate(arena: int) -> torch.Tensor:
            if arena:
                raise MemoryBudgetError(1, 0, "the test", "")
            return allocate_on(DEVICE, PAGE)

        placer = CudaPlacer(plan, Supply(allocate), DEVICE, slot_bytes=4 * PAGE, cast=None)
        lane = placer.open_lane()
        with pytest.raises(MemoryBudgetError):
            bring(file, plan.extents[0], lane)
        memory = range_of(placer._arenas.get(0)[0])
        lane.close()
        assert not machine.pending(memory)
        assert machine.registered == {}


def test_a_device_that_fails_at_the_end_still_unpins(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(file_of(MIXED), SMALL)
    lane = placer_of(machine, plan).open_lane()

    def fail(self: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("pretended_cuda.Stream.synchronize", fail)
    monkeypatch.setattr("pretended_cuda.Event.synchronize", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        lane.close()
    assert machine.registered == {}


def test_a_lane_that_cannot_have_all_its_memory_keeps_none(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(file_of(MIXED), SMALL)
    placer = placer_of(machine, plan)
    answers = iter([memoryview(bytearray(PAGE))])

    def map_once(nbytes: int) -> memoryview:
        try:
            return next(answers)
        except StopIteration:
            raise MemoryError from None

    monkeypatch.setattr("fastload._place.cuda_memory.map_staging", map_once)
    with pytest.raises(MemoryError):
        placer.open_lane()
    assert machine.registered == {}
    assert placer.staging_bytes == 0


def test_memory_that_another_process_took_is_a_budget_error(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(nbytes: int) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(machine, "_empty", fail)
    pretend_memory(monkeypatch, free=30, reserved=25, allocated=20)
    with pytest.raises(MemoryBudgetError) as caught:
        allocate_on(DEVICE, 100)
    assert (caught.value.needed_bytes, caught.value.available_bytes) == (100, 35)
    assert "cuda:0" in caught.value.limit


def pretend_memory(monkeypatch: pytest.MonkeyPatch, *, free: int, reserved: int, allocated: int) -> None:
    answers: dict[str, Callable[[object], object]] = {
        "mem_get_info": lambda _: (free, 80),
        "memory_reserved": lambda _: reserved,
        "memory_allocated": lambda _: allocated,
        "get_device_properties": lambda _: SimpleNamespace(is_integrated=False),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)


def test_what_torch_holds_in_reserve_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_memory(monkeypatch, free=30, reserved=25, allocated=20)
    assert device_headroom(DEVICE, None) == Headroom("the free memory of cuda:0", 35)
    assert device_headroom(DEVICE, 100) == Headroom("the free memory of cuda:0", 35)
    assert device_headroom(DEVICE, 34) == Headroom("the setting device_bytes", 34)


def test_an_allocator_that_keeps_no_count_has_no_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """As RMM's, which is plugged into torch: it was an error of the device, and no load could begin."""
    pretend_memory(monkeypatch, free=30, reserved=0, allocated=0)

    def refuse(_: object) -> int:
        raise RuntimeError("CUDAPluggableAllocator does not yet support getDeviceStats.")

    monkeypatch.setattr(torch.cuda, "memory_reserved", refuse)
    monkeypatch.setattr(torch.cuda, "memory_allocated", refuse)
    assert device_headroom(DEVICE, None) == Headroom("the free memory of cuda:0", 30)


def test_an_empty_tensor_is_on_the_device_too(machine: Machine) -> None:
    plan = plan_of(file_of({"none": ("BF16", [4, 0])}), SMALL)
    assert [p.arena for p in plan.placements] == [NOWHERE]
    tensor = placer_of(machine, plan).take(0)
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.bfloat16, (4, 0))


# On a real device.

real_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.mark.gpu
@real_device
@pytest.mark.parametrize("cast", [None, torch.float64])
@pytest.mark.parametrize("lane_count", [1, 2])
def test_on_a_device_every_byte_arrives_aligned(
    device: torch.device, lane_count: int, cast: torch.dtype | None
) -> None:
    tensors = {**MIXED, "large": ("BF16", [5 * MIB]), **{f"t{n}": ("F32", [n * 997]) for n in range(60)}}
    file = file_of(tensors)
    plan = plan_of(file, ON_DEVICE, extent_bytes=64 * KIB)
    placer = CudaPlacer(
        plan, Supply(lambda arena: allocate_on(device, plan.arena_bytes[arena])), device, slot_bytes=64 * KIB, cast=cast
    )
    lanes = [placer.open_lane() for _ in range(lane_count)]
    for number, extent in enumerate(plan.extents):
        bring(file, extent, lanes[number % lane_count])
    placer.catch_up()
    taken = [placer.take(number) for number in range(len(plan.placements))]
    for lane in lanes:
        lane.close()
    placer.finish()
    host = plan_of(file, extent_bytes=64 * KIB)
    for number, (tensor, placement) in enumerate(zip(taken, plan.placements, strict=True)):
        assert tensor.device == device
        stored = torch.frombuffer(bytearray(stored_bytes(file, host, number) or b"\0" * 8), dtype=torch.uint8)
        expected = stored[: placement.info.nbytes]
        if cast is not None and placement.info.dtype.name in {"F32", "F64", "BF16"}:
            own = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16}[placement.info.dtype.name]
            expected = expected.view(own).to(cast).view(torch.uint8)
        elif cast is None:
            assert tensor.data_ptr() % 16 == 0
        assert torch.equal(tensor.flatten().view(torch.uint8).cpu(), expected.flatten())


@pytest.mark.gpu
@real_device
def test_on_a_device_storage_is_shared_by_small_tensors_only(device: torch.device) -> None:
    file = file_of({"a": ("F32", [100]), "b": ("F32", [100]), "large": ("BF16", [MIB])})
    plan = plan_of(file, ON_DEVICE, extent_bytes=4 * MIB)
    placer = CudaPlacer(
        plan, Supply(lambda arena: allocate_on(device, plan.arena_bytes[arena])), device, slot_bytes=4 * MIB, cast=None
    )
    lane = placer.open_lane()
    for extent in plan.extents:
        bring(file, extent, lane)
    lane.close()
    a, b, large = (placer.take(number) for number in range(3))
    assert a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    assert a.data_ptr() % 256 == 0
    assert large.untyped_storage().nbytes() == 2 * MIB


@pytest.mark.gpu
@real_device
def test_on_a_device_staging_is_given_back(device: torch.device) -> None:
    file = file_of({"a": ("U8", [PAGE])})
    plan = plan_of(file, ON_DEVICE, extent_bytes=4 * MIB)
    before = torch.cuda.memory_allocated(device)
    placer = CudaPlacer(
        plan, Supply(lambda arena: allocate_on(device, plan.arena_bytes[arena])), device, slot_bytes=4 * MIB, cast=None
    )
    lanes = [placer.open_lane() for _ in range(2)]
    assert torch.cuda.memory_allocated(device) - before >= 8 * MIB
    bring(file, plan.extents[0], lanes[0])
    for lane in lanes:
        lane.close()
    torch.cuda.synchronize(device)
    assert torch.cuda.memory_allocated(device) - before < MIB
