"""A load's work by the way past the host, on the pretended device: what goes where, and what becomes of errors."""

from __future__ import annotations

import random
import sys
from collections import Counter, deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from blake3 import blake3

from fake_kvikio import FakeKvikio
from fastload._clock import Busy
from fastload._format.checkpoint import Checkpoint, Shard
from fastload._load.read.device_reads import DeviceReads
from fastload._load.read.pipeline import Pipeline
from fastload._load.read.schedule import Schedule
from fastload._load.read.sources import Sources
from fastload._load.read.workers import Ways, choose_workers
from fastload._load.read.workplace import Workplace
from fastload._load.stream.summary import describe_readers
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_memory import allocate_on
from fastload._plan.layout import LayoutRules, lay_out
from fastload._plan.plan import build_plan
from fastload._read import gds_switch
from fastload._read.choose import choose_reader
from fastload._read.cuda_driver import CudaDriver
from fastload._read.gds_health import GdsHealth
from fastload._read.gds_statistics import ReadCounts
from fastload._read.gds_switch import GdsSwitch
from fastload._read.head import read_header
from fastload._read.proof import BlockProof, ProofTell
from fastload._read.tally import ProofTally
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import UnsupportedError
from late_digester import LateDigester
from packed_files import make_shards
from pretended_cuda import DEVICE, OTHER, Machine, pretended_cuda

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastload._read.choose import Choice
    from fastload._read.reader import File, Reader

MIB = 1 << 20
RULES = LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 << 20, own_bytes=1 << 20)
BROKEN = RuntimeError("cuFile error: GPU memory pinning failed")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with pretended_cuda(monkeypatch, random.Random(3)) as machine:  # noqa: S311 - a schedule
        yield machine


SIZES = (("a", 5 * MIB + 3), ("b", 17), ("c", 5 * MIB))


class Counting:
    """cuFile's statistics: what the fake read, as GPUDirect Storage or not."""

    def __init__(self, kvikio: FakeKvikio, *, posix: bool) -> None:
        self._kvikio = kvikio
        self._posix = posix

    def start(self) -> None:
        """They are on."""

    def read(self) -> ReadCounts:
        count = len(self._kvikio.reads)
        return ReadCounts(0, count) if self._posix else ReadCounts(count, 0)


class Load:
    """Two shards of about 10 MiB, brought by one worker."""

    def __init__(self, machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch, *, posix: bool = False) -> None:
        self.machine = machine
        self.kvikio = FakeKvikio()
        for name in ("kvikio", "kvikio.defaults"):
            monkeypatch.setitem(sys.modules, name, self.kvikio)
        monkeypatch.setattr(gds_switch, "load_driver", lambda: CudaDriver(machine))
        monkeypatch.setattr(gds_switch, "load_statistics", lambda: Counting(self.kvikio, posix=posix))
        self.paths = []
        self.expected: dict[str, bytes] = {}
        for number, (packed, tensors) in enumerate(make_shards(2, SIZES)):
            path = folder / f"{number}.safetensors"
            path.write_bytes(packed)
            self.expected |= tensors
            self.paths.append(path)
        shards = tuple(Shard(path.name, str(path), *read_header(str(path))) for path in self.paths)
        self.checkpoint = Checkpoint(shards, None)
        self.plan = build_plan(self.checkpoint, lambda _: True, _lay, extent_bytes=BLOCK_BYTES)
        self.health = GdsHealth()
        self.switch = GdsSwitch(self.health, 0, "nobody asked")
        self.choices = {number: choose_reader(shard, "buffered") for number, shard in enumerate(shards)}
        self.tally = ProofTally()
        self.is_required = False
        self.served = {0, 1}

    def prove(self) -> None:
        """By blocks, which the device digests."""
        self.choices = {number: self._proven(choice) for number, choice in self.choices.items()}

    def _proven(self, choice: Choice) -> Choice:
        busy = Busy()

        def open_proof(file: File) -> Reader:
            content = self.contents[file.path]
            blocks = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]
            digests = [blake3(block).hexdigest() for block in blocks]
            tell = ProofTell(self.tally, lambda: busy.measure("hash"), lambda: busy.measure("wait"), lambda: False)
            return BlockProof(choice.open(file), file, digests, lambda wanted: blocks[wanted.index], tell)

        self.contents = {str(path): path.read_bytes() for path in self.paths}
        return replace(choice, open=open_proof)

    def run(self, digesting: Any = None) -> tuple[str, str]:
        """Bring all; which readers served."""
        shards, extents = self.checkpoint.shards, self.plan.extents
        reads = DeviceReads(shards, self.served, extents, self.switch, is_required=self.is_required)
        sources = Sources(shards, self.choices, extents)
        schedule = Schedule(extents, window_bytes=None)
        placer = CudaPlacer(
            self.plan,
            Supply(lambda arena: allocate_on(DEVICE, self.plan.arena_bytes[arena])),
            DEVICE,
            slot_bytes=BLOCK_BYTES,
            cast=None,
            digesting=digesting,
        )
        at, ways = Workplace(self.plan, sources, placer, schedule, Busy()), Ways(reads)
        workers = choose_workers(at, ways, threads=1)
        (worker,) = workers.needed
        pipeline = Pipeline(at, workers, ways)
        pipeline.run(worker)
        try:
            schedule.check()
        finally:
            pipeline.close()
        placer.catch_up()
        self.machine.run_all()
        for number, placement in enumerate(self.plan.placements):
            is_same = placer.take(number).numpy().tobytes() == self.expected[placement.info.name]
            assert is_same  # bare, since pytest would compare megabytes for minutes
        assert not self.kvikio.open_files
        assert not self.machine.plain
        return describe_readers(sources, reads)


def _lay(infos: Any, _: int, first_arena: int) -> Any:
    return lay_out(infos, RULES, first_arena=first_arena)


@pytest.fixture
def load(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    return Load(machine, tmp_path, monkeypatch)


def test_cufile_is_opened_on_its_device_and_the_callers_stays_current(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by name it is opened on the caller's own thread, whose next tensors went to the device loaded to."""
    load.machine.device = OTHER.index
    seen: list[int] = []
    monkeypatch.setattr(load.kvikio, "opening", lambda: seen.append(load.machine.device))
    load.switch.turn_on(load.checkpoint.shards[0])
    assert seen == [DEVICE.index]
    assert load.machine.device == OTHER.index


def test_whole_pages_go_past_the_host_and_tails_through_it(load: Load) -> None:
    load.switch.turn_on(load.checkpoint.shards[0])
    name, reason = load.run()
    assert name == "gds+buffered"
    assert reason.startswith("4 of 6 extents by cuFile, all of its 4 reads past the host; the rest asked for by name")
    assert Counter(offset for offset, _ in load.kvikio.reads) == {0: 2, BLOCK_BYTES: 2}


def test_what_cufile_reads_through_the_host_is_not_called_gds(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = Load(machine, tmp_path, monkeypatch, posix=True)
    load.switch.turn_on(load.checkpoint.shards[0])
    name, reason = load.run()
    assert name == "cufile+buffered"
    assert "which read through the host: 4 reads by POSIX" in reason


def test_without_statistics_nothing_is_called_gds(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UnsupportedError("no such library")

    monkeypatch.setattr(gds_switch, "load_statistics", refuse)
    load.switch.turn_on(load.checkpoint.shards[0])
    name, reason = load.run()
    assert name == "cufile+buffered"
    assert "statistics do not say whether past the host" in reason


def test_while_it_is_off_all_goes_through_the_host(load: Load) -> None:
    assert load.run() == ("buffered", "asked for by name; no gds: nobody asked")
    assert not load.kvikio.reads


class Later(GdsSwitch):
    """Is turned on when it is asked for the fourth time."""

    asked = 0
    shard: Any = None

    @property
    def files(self) -> Any:
        self.asked += 1
        if self.asked == 4:
            self.turn_on(self.shard)
        return super().files


def test_it_is_turned_on_in_the_midst_of_a_load(load: Load) -> None:
    load.switch = later = Later(load.health, 0, "the probe was still running")
    later.shard = load.checkpoint.shards[0]
    name, reason = load.run()
    assert name == "gds+buffered"
    assert reason.startswith("2 of 6 extents by cuFile")


def test_an_extent_that_fails_is_read_through_the_host_at_once(load: Load) -> None:
    load.switch.turn_on(load.checkpoint.shards[0])
    load.kvikio.failures = {"read": deque([BROKEN])}
    name, reason = load.run()
    assert name == "gds+buffered"
    assert reason.startswith("3 of 6 extents by cuFile")
    assert not load.health.verdict


@pytest.mark.parametrize("call", ["read", "register", "open"])
def test_three_failures_end_it_for_the_process(load: Load, call: str) -> None:
    load.switch.turn_on(load.checkpoint.shards[0])
    failures: deque[Exception] = deque([BROKEN] * 9)
    load.kvikio.failures = {call: failures}
    name, reason = load.run()
    assert name == "buffered"
    assert "3 errors of cuFile in this process" in reason
    assert len(failures) == 6
    load.kvikio.failures = {}
    later = GdsSwitch(load.health, 0, "nobody asked")
    later.turn_on(load.checkpoint.shards[0])
    assert later.files is None


def test_by_name_an_error_of_cufile_is_the_loads(load: Load) -> None:
    load.is_required = True
    load.switch.turn_on(load.checkpoint.shards[0])
    load.kvikio.failures = {"read": deque([BROKEN])}
    with pytest.raises(UnsupportedError, match="pinning failed"):
        load.run()
    assert not load.machine.plain
    assert not load.kvikio.open_files


def test_by_name_nothing_goes_another_way_unsaid(load: Load) -> None:
    load.is_required = True
    with pytest.raises(UnsupportedError, match="cannot go on: nobody asked"):
        load.run()
    load.prove()
    load.switch.turn_on(load.checkpoint.shards[0])
    with pytest.raises(UnsupportedError, match="cannot go on: the device does not take the digests"):
        load.run(lambda _: None)


def test_shards_that_may_not_are_left_alone(load: Load) -> None:
    load.served = {1}
    load.switch.turn_on(load.checkpoint.shards[0])
    assert load.run()[1].startswith("2 of 6 extents by cuFile")


def test_what_must_be_proven_waits_for_the_device_to_digest(load: Load) -> None:
    """As long as the CPU takes the digests, bytes that it never sees would be unproven."""
    load.prove()
    load.switch.turn_on(load.checkpoint.shards[0])
    name, _ = load.run(lambda _: None)
    assert name == "buffered"
    assert load.tally.verified == 6
    assert not load.tally.on_device


def test_what_is_damaged_on_the_disk_is_mended_on_the_device(load: Load) -> None:
    load.prove()
    at = BLOCK_BYTES + 1000
    whole = load.paths[1].read_bytes()
    with load.paths[1].open("r+b") as file:
        file.seek(at)
        file.write(bytes([whole[at] ^ 1]))
    shards = [Shard(path.name, str(path), *read_header(str(path))) for path in load.paths]
    load.checkpoint = Checkpoint(tuple(shards), None)
    load.switch.turn_on(shards[0])
    name, _ = load.run(lambda _: LateDigester(load.machine, BLOCK_BYTES))
    assert name == "gds+buffered"
    assert (load.tally.verified, load.tally.on_device, load.tally.ledger.repaired) == (6, 6, 1)
