"""Slots that are pinned before anybody knows what is to be loaded, on the pretended device."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch._C._distributed_c10d import HashStore

from fastload._fetch.deadline import NEVER
from fastload._fetch.find.model import Source
from fastload._group.attendance import Attendance
from fastload._group.meeting import Seat
from fastload._load.engine import _pinning
from fastload._load.request.request import Request, begin_deadline
from fastload._load.target.target import pinning_early
from fastload._place import cuda_memory
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import PinnedSlot, allocate_on
from fastload._place.pinned_ring import _MAKERS, PinnedRing
from fastload._place.slots import room_for_digests
from fastload.errors import UnsupportedError
from fastload.options import decide_settings
from own_memory import pages_present
from packed_files import PAGE, file_of, plan_of
from pretended_cuda import DEVICE, Machine, pretended_cuda

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1 << 10


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with pretended_cuda(monkeypatch, random.Random(0)) as machine:  # noqa: S311 - a schedule
        yield machine


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
    attendance = Attendance(Seat(0, 1, HashStore(), None), 1.0)
    for group, pins in ((None, True), (attendance, False)):
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
    attendance.take(NEVER).close()
    assert not machine.registered


def test_host_memory_and_staging_of_no_use_need_none(machine: Machine) -> None:
    with pinning_early(torch.device("cpu"), 256 << 20) as ring:
        assert ring is None
    with pinning_early(DEVICE, 4 << 20) as ring:
        assert ring is None
    assert not machine.registered
