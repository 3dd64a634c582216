"""Slots that are pinned before anybody knows what is to be loaded, on the pretended device."""

from __future__ import annotations

import gc
import threading
import time
from typing import TYPE_CHECKING

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from fastload._collector import collector_paused
from fastload._fetch.deadline import NEVER
from fastload._fetch.find.model import Source
from fastload._group.pending import PendingCommunicator
from fastload._group.rendezvous import GroupMember
from fastload._load.engine import _pinning
from fastload._load.request.request import Request, begin_deadline
from fastload._load.target.cuda_early import pinning_early
from fastload._place import cuda_memory
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import PinnedSlot, allocate_on
from fastload._place.pinned_ring import _MAKERS, PinnedRing
from fastload._place.slots import room_for_digests
from fastload.errors import MemoryBudgetError, UnsupportedError
from fastload.options import decide_settings
from own_memory import in_child, pages_present
from packed_files import PAGE, file_of, plan_of
from pretended_cuda import DEVICE, OTHER, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastload._place.placer import Lane

KIB = 1 << 10


def wait_for_slots(machine: Machine, count: int) -> None:
    for _ in range(10_000):
        if len(machine.registered) == count:
            return
        threading.Event().wait(0.001)
    pytest.fail(f"{len(machine.registered)} slots of {count}")


def test_slots_are_made_beside_and_taken(machine: Machine) -> None:
    ring = PinnedRing(DEVICE, 64 * KIB, 128, 4)
    wait_for_slots(machine, 4)
    taken = [ring.take(64 * KIB, 128) for _ in range(5)]
    assert [slot is not None for slot in taken] == [True] * 4 + [False]
    for slot in taken[:4]:
        assert slot is not None
        assert (len(slot.memory), len(slot.room), slot.is_pinned) == (64 * KIB, 128, True)
        slot.unpin()
    ring.close()
    assert not machine.registered


@pytest.mark.usefixtures("machine")
def test_all_pages_are_there_before_the_driver_is_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its lock, it has them made for one thread at a time."""
    missing: list[int] = []
    pin = torch.cuda.cudart().cudaHostRegister

    def looking(address: int, nbytes: int, flags: int) -> int:
        pages = pages_present(address, nbytes)
        assert pages is not None
        missing.append(pages.count(False))
        return int(pin(address, nbytes, flags))

    monkeypatch.setattr(torch.cuda.cudart(), "cudaHostRegister", looking)
    slot = PinnedSlot(16 << 20, 128)
    slot.unpin()
    assert missing == [0]


def test_what_nobody_took_is_unpinned(machine: Machine) -> None:
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 3)
    wait_for_slots(machine, 3)
    assert ring.take(32 * KIB, 0) is None, "slots of another size are of no use"
    ring.close()
    assert not machine.registered
    ring.close()


def test_a_ring_that_is_dropped_unpins(machine: Machine) -> None:
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 3)
    wait_for_slots(machine, 3)
    del ring
    assert not machine.registered


@pytest.mark.parametrize("ends", ["closed", "dropped"])
def test_who_ends_it_makes_no_context_on_the_device_that_is_current_there(machine: Machine, ends: str) -> None:
    """Half a gigabyte on a device that nobody loads to."""
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 3)
    wait_for_slots(machine, 3)
    machine.device = OTHER.index
    if ends == "closed":
        ring.close()
    del ring
    assert not machine.registered
    assert not machine.strays
    assert machine.device == OTHER.index


def test_a_device_that_fails_hides_nothing_that_ended_the_load(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To go over to it is an error then; and the ring is closed where a load has ended by one already."""
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 3)
    wait_for_slots(machine, 3)

    def fail(_: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "device", fail)
    ring.close()
    assert ring.take(64 * KIB, 0) is None


def test_a_forked_child_lets_go_of_nothing_that_is_its_parents(machine: Machine) -> None:
    """The driver does not serve it, which torch says by an error; a thread that it does not have may hold a lock."""
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 3)
    wait_for_slots(machine, 3)

    def let_go() -> bool:
        ring.close()
        return len(machine.registered) == 3

    assert in_child(let_go)
    ring.close()
    assert not machine.registered


@pytest.mark.parametrize("granted", [1, 2])
def test_fewer_threads_than_wanted_make_them_all(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, granted: int
) -> None:
    start, left = threading.Thread.start, iter(range(granted))

    def refuse(thread: threading.Thread) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 5)
    wait_for_slots(machine, 5)
    ring.close()
    assert not machine.registered


@pytest.mark.usefixtures("machine")
def test_where_no_thread_is_to_be_had_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(UnsupportedError, match="no thread"):
        PinnedRing(DEVICE, 64 * KIB, 0, 5)


@pytest.fixture
def makers_wait(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What lets the makers go on, all of which pin by now, or will."""
    go_on, pin = threading.Event(), PinnedSlot._pin

    def waiting(slot: PinnedSlot) -> bool:
        if threading.current_thread().name.startswith("fastload-pinning"):
            assert go_on.wait(20)
        return pin(slot)

    monkeypatch.setattr(cuda_memory.PinnedSlot, "_pin", waiting)
    yield go_on
    go_on.set()


def join_makers() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("fastload-pinning"):
            thread.join(20)
            assert not thread.is_alive()


def placer_of_pages() -> CudaPlacer:
    plan = plan_of(file_of({"a": ("U8", [5 * PAGE])}))
    return CudaPlacer(
        plan, Supply(lambda arena: allocate_on(DEVICE, plan.arena_bytes[arena])), DEVICE, slot_bytes=PAGE, cast=None
    )


def test_no_more_is_pinned_than_was_weighed(machine: Machine, makers_wait: threading.Event) -> None:
    """Lanes that are opened while all slots are being made wait for one of them."""
    placer = placer_of_pages()
    placer.use(PinnedRing(DEVICE, PAGE, room_for_digests(PAGE), 4), at_first=1, per_lane=2)
    lanes: list[Lane] = []

    def open_lanes() -> None:
        with machine:  # which counts by thread
            lanes.extend(placer.open_lane() for _ in range(2))

    opening = threading.Thread(target=open_lanes)
    opening.start()
    makers_wait.wait(0.1)
    makers_wait.set()
    opening.join(20)
    join_makers()
    assert all(lane.has_room for lane in lanes)
    assert len(machine.registered) == 4
    for lane in lanes:
        lane.close()
    placer.finish()
    assert not machine.registered


def test_what_is_being_made_when_others_are_wanted_is_unpinned(machine: Machine, makers_wait: threading.Event) -> None:
    """Not only when the ring is closed, which is the end of the load."""
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 4)
    assert ring.take_or_claim(32 * KIB, 0) is None
    makers_wait.set()
    join_makers()
    assert not machine.registered
    ring.close()


@pytest.mark.parametrize("at", [0, 2])
def test_ctrl_c_while_makers_are_started_leaks_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, makers_wait: threading.Event, at: int
) -> None:
    start, count = threading.Thread.start, iter(range(99))

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if next(count) == at:
            makers_wait.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        PinnedRing(DEVICE, 64 * KIB, 0, 4)
    gc.collect()
    join_makers()
    assert not machine.registered


def test_a_ring_that_the_collector_finds_in_a_maker_unpins(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped, pin = threading.Event(), PinnedSlot._pin

    def collecting(slot: PinnedSlot) -> bool:
        assert dropped.wait(20)
        gc.collect()  # it runs wherever memory is asked for
        return pin(slot)

    monkeypatch.setattr(cuda_memory.PinnedSlot, "_pin", collecting)
    gc.collect()
    with collector_paused():
        circle: list[object] = [PinnedRing(DEVICE, 64 * KIB, 0, 4)]
        circle.append(circle)
        del circle
        dropped.set()
        join_makers()
    assert not machine.registered


def test_closing_does_not_wait_for_a_driver_that_hangs(machine: Machine, makers_wait: threading.Event) -> None:
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 4)
    begin_s = time.monotonic()
    ring.close()
    assert time.monotonic() - begin_s < 5, "they wait for 20 s"
    makers_wait.set()
    join_makers()
    assert not machine.registered


def test_where_pinning_is_refused_a_lane_has_one_slot(machine: Machine) -> None:
    machine.refuse_to_pin(*[True] * 99)
    placer = placer_of_pages()
    placer.use(PinnedRing(DEVICE, PAGE, room_for_digests(PAGE), 4), at_first=1, per_lane=3)
    join_makers()
    lane = placer.open_lane()
    assert lane.has_room
    assert placer.staging_bytes == PAGE
    lane.close()
    placer.finish()


@pytest.mark.usefixtures("machine")
def test_a_device_that_fails_is_not_told_by_the_makers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lanes meet it as well, and the load ends by that."""
    told: list[object] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fail(_: object) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal")

    monkeypatch.setattr(torch.cuda, "set_device", fail)
    PinnedRing(DEVICE, 64 * KIB, 0, 4).close()
    join_makers()
    assert not told


def test_a_maker_that_fails_is_made_up_for_by_who_takes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    count, pin = iter(range(99)), PinnedSlot._pin

    def failing(slot: PinnedSlot) -> bool:
        if next(count) == 1:
            raise MemoryBudgetError(1, 0, "the test")
        return pin(slot)

    monkeypatch.setattr(cuda_memory.PinnedSlot, "_pin", failing)
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 4)
    join_makers()
    taken = [ring.take_or_claim(64 * KIB, 0) for _ in range(4)]
    assert [slot is None for slot in taken] == [False] * 3 + [True]
    for slot in filter(None, taken):
        slot.unpin()
    ring.close()
    assert not machine.registered


def test_who_takes_does_not_wait(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    making, go_on = threading.Event(), threading.Event()
    pin = PinnedSlot._pin

    def slow(slot: PinnedSlot) -> bool:
        making.set()
        assert go_on.wait(20)
        return pin(slot)

    monkeypatch.setattr(cuda_memory.PinnedSlot, "_pin", slow)
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 100)
    assert making.wait(20)
    assert ring.take(64 * KIB, 0) is None
    go_on.set()
    ring.close()
    assert not machine.registered
    assert "fastload-pinning" not in {thread.name for thread in threading.enumerate()}


def test_lanes_take_what_is_ready_and_the_rest_is_unpinned_at_the_end(machine: Machine) -> None:
    plan = plan_of(file_of({"a": ("U8", [5 * PAGE])}))
    placer = CudaPlacer(
        plan, Supply(lambda arena: allocate_on(DEVICE, plan.arena_bytes[arena])), DEVICE, slot_bytes=PAGE, cast=None
    )
    ring = PinnedRing(DEVICE, PAGE, room_for_digests(PAGE), 5)
    wait_for_slots(machine, 5)
    placer.use(ring, at_first=2, per_lane=2)
    lane = placer.open_lane()
    assert len(machine.registered) == 5, "nothing was pinned beside"
    lane.close()
    placer.finish()
    assert not machine.registered


def test_where_pinning_is_refused_the_making_ends(machine: Machine) -> None:
    machine.refuse_to_pin(False, *[True] * 99)
    ring = PinnedRing(DEVICE, 64 * KIB, 0, 100)
    wait_for_slots(machine, 1)
    ring.close()
    assert not machine.registered
    assert len(machine.register_answers) >= 99 - _MAKERS, "each of them asks once more at most"


def test_an_error_while_planning_unpins(machine: Machine) -> None:
    def plan() -> None:
        with pinning_early(DEVICE, 256 << 20) as ring:
            assert ring is not None
            raise KeyError

    with pytest.raises(KeyError):
        plan()
    assert not machine.registered


def test_a_group_pins_when_it_has_met(machine: Machine) -> None:
    """Which slots it needs depends on who sends to it: what were pinned before would be of no use to it."""
    settings = decide_settings(None, {})
    pending = PendingCommunicator(GroupMember(0, 1, HashStore(), None), 1.0)
    for group, pins in ((None, True), (pending, False)):
        source = Source("model")
        request = Request(
            source=source,
            tensors=None,
            dtype=None,
            progress=None,
            settings=settings,
            deadline=begin_deadline(source, settings),
            group=group,
        )
        with _pinning(DEVICE, request) as ring:
            assert (ring is not None) is pins
            if ring is not None:
                ring.close()
    pending.take(NEVER).close()
    assert not machine.registered


def test_host_memory_and_staging_of_no_use_need_none(machine: Machine) -> None:
    with pinning_early(torch.device("cpu"), 256 << 20) as ring:
        assert ring is None
    with pinning_early(DEVICE, 4 << 20) as ring:
        assert ring is None
    assert not machine.registered
