"""Blocks that are digested where they arrive, on the pretended device: none lands before it was found right."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3

from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on
from fastload._plan.layout import LayoutRules
from fastload._read.proof import BlockCheck
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import IntegrityError
from late_digester import LateDigester
from packed_files import MIB, PAGE, File, by_rules, file_of, plan_of, stored_bytes
from pretended_cuda import DEVICE, Machine, NoHaste

if TYPE_CHECKING:
    from fastload._place.cuda_lane import CudaLane
    from fastload._plan.plan import Plan

ON_DEVICE = by_rules(LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 << 20, own_bytes=1 << 20))
SLOT_BYTES = 2 * BLOCK_BYTES


class Load:
    """One lane that brings a file of several extents, whose damaged blocks are mended from the right ones."""

    def __init__(self, machine: Machine, *, lies: bool = False) -> None:
        self.file: File = file_of({f"t{n}": ("U8", [n * MIB + 5]) for n in range(1, 7)})
        self.plan: Plan = plan_of(self.file, ON_DEVICE, extent_bytes=SLOT_BYTES)
        self.placer = CudaPlacer(
            self.plan,
            Supply(lambda arena: allocate_on(DEVICE, self.plan.arena_bytes[arena])),
            DEVICE,
            slot_bytes=SLOT_BYTES,
            cast=None,
            digesting=lambda _: LateDigester(machine, SLOT_BYTES, lies=lies),
        )
        self.lane: CudaLane = self.placer.open_lane()
        self.landed: list[int] = []
        self.passed: list[int] = []
        self.mended: list[int] = []

    def bring(self, number: int, flipped: int | None = None) -> None:
        assert self.lane.takes_digests
        extent = self.plan.extents[number]
        right = self.file.stored[extent.offset : extent.offset + extent.length]
        (buffer,) = self.lane.buffers_for(extent, PAGE)
        buffer[: extent.length] = right
        if flipped is not None:
            buffer[flipped] ^= 1
        blocks = [right[at : at + BLOCK_BYTES] for at in range(0, len(right), BLOCK_BYTES)]

        def mend(index: int, found: str) -> memoryview:
            assert number not in self.landed
            assert found != blake3(blocks[index]).hexdigest()
            self.mended.append(number)
            return memoryview(blocks[index])

        digests = [blake3(block).hexdigest() for block in blocks]
        check = BlockCheck("/m/a", extent.offset, digests, mend, partial(self.passed.append, number))
        self.lane.place(partial(self.landed.append, number), check)

    def finish(self) -> None:
        self.lane.settle()
        self.placer.catch_up()
        self.lane.close()


@pytest.mark.parametrize("seed", range(12))
def test_what_is_damaged_on_the_way_is_mended_before_it_lands(machine: Machine, seed: int) -> None:
    machine.reseed(seed)
    chance = random.Random(seed)  # noqa: S311 - places
    load = Load(machine)
    bad = set(chance.sample(range(len(load.plan.extents)), 2))
    for number, extent in enumerate(load.plan.extents):
        load.bring(number, chance.randrange(extent.length) if number in bad else None)
    load.finish()
    machine.run_all()
    assert sorted(load.mended) == sorted(bad)
    assert sorted(load.landed) == sorted(load.passed) == list(range(len(load.plan.extents)))
    for number in range(len(load.plan.placements)):
        found = load.placer.take(number).flatten().numpy().tobytes()
        assert found == stored_bytes(load.file, load.plan, number)


def test_nothing_lands_before_its_digests_are_back(machine: Machine) -> None:
    machine._rng = NoHaste()
    load = Load(machine)
    load.bring(0)
    load.bring(1)
    assert load.landed == []
    load.bring(2)
    assert load.landed == [0]
    load.finish()
    assert load.landed == [0, 1, 2]


def test_what_stays_wrong_on_the_device_is_damage_there(machine: Machine) -> None:
    load = Load(machine, lies=True)
    load.bring(0)
    with pytest.raises(IntegrityError, match="on cuda:0") as caught:
        load.lane.settle()
    assert (caught.value.path, caught.value.offset) == ("/m/a", load.plan.extents[0].offset)
    assert load.landed == []
    load.lane.close()
    assert machine.registered == {}
