"""Extents that storage brings to the device itself, on the pretended device: in order with digests and scattering."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from blake3 import blake3

from fake_kvikio import FakeKvikio
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on
from fastload._read.file import identify
from fastload._read.gds import CuFiles
from fastload._read.gds_health import GdsHealth
from fastload._read.proof import BlockCheck
from fastload._read.reader import PlainFile
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import UnsupportedError
from late_digester import LateDigester
from packed_files import MIB, PAGE, File, file_of, plan_of, stored_bytes
from pretended_cuda import DEVICE, Machine, Range
from test_device_proof import ON_DEVICE

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._place.cuda_lane import CudaLane
    from fastload._plan.plan import Plan


SLOT_BYTES = BLOCK_BYTES


class WatchedKvikio(FakeKvikio):
    """Storage asks no stream: whatever is queued on that memory would read what comes, or write over it."""

    def __init__(self, machine: Machine, failures: dict[str, list[Exception]] | None = None) -> None:
        super().__init__(failures)
        self.machine = machine

    def written(self, address: int, nbytes: int) -> None:
        assert not self.machine.pending(Range(address, address + nbytes)), "written under a kernel"
        assert self.registered[address], "not registered"


class Load:
    """One lane and a file, of which each extent comes the one way or the other."""

    def __init__(self, machine: Machine, folder: Path, failures: dict[str, list[Exception]] | None = None) -> None:
        self.file: File = file_of({f"t{n}": ("U8", [n * MIB + 5]) for n in (1, 3, 4, 9)})
        self.plan: Plan = plan_of(self.file, ON_DEVICE, extent_bytes=SLOT_BYTES)
        self.path = folder / "model.safetensors"
        self.path.write_bytes(self.file.stored)
        self.kvikio = WatchedKvikio(machine, failures)
        self.files = CuFiles(self.kvikio, health=GdsHealth())
        self.placer = CudaPlacer(
            self.plan,
            Supply(lambda arena: allocate_on(DEVICE, self.plan.arena_bytes[arena])),
            DEVICE,
            slot_bytes=SLOT_BYTES,
            cast=None,
            digesting=lambda _: LateDigester(machine, SLOT_BYTES),
        )
        self.lane: CudaLane = self.placer.open_lane()
        self.landed: list[int] = []

    def damage(self, offset: int) -> None:
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes([self.file.stored[offset] ^ 1]))

    def bring(self, number: int, *, past_host: bool, is_checked: bool) -> None:
        extent = self.plan.extents[number]
        right = self.file.stored[extent.offset : extent.offset + extent.length]
        if past_host:
            reader = self.files.open(PlainFile(str(self.path), identify(self.path.stat())))
            try:
                reader.read_onto(self.lane.device_memory_for(extent, self.files), extent.offset, extent.length)
            finally:
                reader.close()
        else:
            (buffer,) = self.lane.buffers_for(extent, PAGE)
            buffer[: extent.length] = right
        self.lane.place(partial(self.landed.append, number), self._check(right, extent.offset) if is_checked else None)

    def _check(self, right: bytes, offset: int) -> BlockCheck | None:
        if not self.lane.takes_digests:
            return None
        blocks = [right[at : at + BLOCK_BYTES] for at in range(0, len(right), BLOCK_BYTES)]
        digests = [blake3(block).hexdigest() for block in blocks]
        return BlockCheck("/m/a", offset, digests, lambda index, _: memoryview(blocks[index]), lambda: None)

    def finish(self) -> None:
        self.lane.settle()
        self.placer.catch_up()
        self.lane.close()

    def assert_right(self) -> None:
        for number in range(len(self.plan.placements)):
            found = self.placer.take(number).flatten().numpy().tobytes()
            assert found == stored_bytes(self.file, self.plan, number)


@pytest.mark.parametrize("seed", range(8))
def test_both_ways_in_any_order(machine: Machine, tmp_path: Path, seed: int) -> None:
    is_checked = bool(seed % 2)
    machine.reseed(seed)
    chance = random.Random(seed)  # noqa: S311 - ways
    load = Load(machine, tmp_path)
    whole = [extent.length % PAGE == 0 for extent in load.plan.extents]
    if is_checked:
        load.damage(chance.randrange(SLOT_BYTES))
    for number in range(len(load.plan.extents)):
        load.bring(number, past_host=whole[number] and (not number or chance.random() < 0.7), is_checked=is_checked)
    load.finish()
    machine.run_all()
    assert sorted(load.landed) == list(range(len(load.plan.extents)))
    load.assert_right()


def test_memory_is_registered_once_and_given_back(machine: Machine, tmp_path: Path) -> None:
    load = Load(machine, tmp_path)
    assert not machine.plain
    for number in range(2):
        load.bring(number, past_host=True, is_checked=True)
    ((address, memory),) = machine.plain.items()
    assert (len(memory), load.kvikio.registered[address]) == (SLOT_BYTES, 1)
    load.finish()
    assert not machine.plain
    assert not load.kvikio.registered.total()


def test_memory_that_cannot_be_registered_is_given_back(machine: Machine, tmp_path: Path) -> None:
    load = Load(machine, tmp_path, {"register": [RuntimeError("no BAR1")]})
    with pytest.raises(UnsupportedError, match="no BAR1"):
        load.bring(0, past_host=True, is_checked=False)
    assert not machine.plain
    for number in range(len(load.plan.extents)):
        load.bring(number, past_host=False, is_checked=False)
    load.finish()
    machine.run_all()
    load.assert_right()


def test_memory_that_torch_cannot_take_is_given_back(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without numpy it does not know the interface by which memory is handed over."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Numpy is not available")

    load = Load(machine, tmp_path)
    monkeypatch.setattr(torch, "as_tensor", refuse)
    with pytest.raises(RuntimeError, match="Numpy"):
        load.bring(0, past_host=True, is_checked=False)
    assert not machine.plain
    assert not load.kvikio.registered.total()
    load.lane.close()


def test_a_device_without_such_memory_is_no_error_of_the_load(machine: Machine, tmp_path: Path) -> None:
    machine.plain_answers.append(2)
    load = Load(machine, tmp_path)
    with pytest.raises(UnsupportedError, match="cuMemAlloc_v2 with error 2"):
        load.bring(0, past_host=True, is_checked=False)
    load.bring(0, past_host=False, is_checked=False)
    load.finish()
    assert load.landed == [0]


def test_memory_that_cufile_holds_on_to_is_not_freed(machine: Machine, tmp_path: Path) -> None:
    load = Load(machine, tmp_path, {"deregister": [RuntimeError("in use")]})
    load.bring(0, past_host=True, is_checked=False)
    load.finish()
    assert len(machine.plain) == 1
    load.files.health.note(UnsupportedError("a"))
    load.files.health.note(UnsupportedError("b"))
    assert load.files.health.verdict


def test_a_read_that_failed_places_nothing(machine: Machine, tmp_path: Path) -> None:
    load = Load(machine, tmp_path, {"read": [RuntimeError("cuFile error")]})
    with pytest.raises(UnsupportedError, match="cuFile error"):
        load.bring(0, past_host=True, is_checked=True)
    for number in range(len(load.plan.extents)):
        load.bring(number, past_host=False, is_checked=True)
    load.finish()
    machine.run_all()
    assert load.landed == list(range(len(load.plan.extents)))
    load.assert_right()
