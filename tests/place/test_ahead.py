"""One thread that has the C library's threads read for it, from real files to the pretended device."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from blake3 import blake3

from fastload._clock import Busy
from fastload._cpus import Cpus
from fastload._format.checkpoint import Checkpoint, Shard
from fastload._load.read import ahead
from fastload._load.read.pipeline import Pipeline
from fastload._load.read.schedule import Schedule
from fastload._load.read.sources import Sources
from fastload._load.read.workers import Ways, choose_ahead_workers
from fastload._load.read.workplace import Workplace
from fastload._load.target.staging import divide_ahead
from fastload._place import cuda
from fastload._place.cuda import CudaPlacer, Supply
from fastload._place.cuda_lane import CudaLane
from fastload._place.cuda_memory import allocate_on
from fastload._place.lane_stream import LaneStream
from fastload._place.pinned_ring import PinnedRing
from fastload._place.slots import room_for_digests
from fastload._plan.layout import LayoutRules, lay_out
from fastload._plan.plan import build_plan
from fastload._read import choose
from fastload._read.background import BackgroundRead
from fastload._read.choose import choose_reader
from fastload._read.counted import counted
from fastload._read.head import read_header
from fastload._read.pread import BufferedReader
from fastload._read.proof import BlockProof, ProofTell
from fastload._read.reader import GradualReader
from fastload._read.tally import ProofTally
from fastload._trace import Trace
from fastload._verify.digest import BLOCK_BYTES
from fastload.errors import FastloadError, FormatError, IntegrityError
from late_digester import LateDigester
from packed_files import make_shards
from pretended_cuda import DEVICE, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastload._read.choose import Choice
    from fastload._read.reader import File, Reader

RULES = LayoutRules(start_alignment=256, tensor_alignment=16, arena_bytes=64 << 20, own_bytes=1 << 20)
LANES = 2
SLOTS_PER_LANE = 3
SIZES = (("0", 9 << 20), ("1", 70), ("2", 8 << 20))


class Load:
    """Three shards of several blocks, brought by one thread."""

    def __init__(self, machine: Machine, folder: Path, *, window_bytes: int | None = None) -> None:
        self.machine = machine
        self.expected: dict[str, bytes] = {}
        self.paths: list[Path] = []
        for number, (packed, tensors) in enumerate(make_shards(3, SIZES)):
            path = folder / f"{number}.safetensors"
            path.write_bytes(packed)
            self.expected |= tensors
            self.paths.append(path)
        shards = tuple(Shard(path.name, str(path), *read_header(str(path))) for path in self.paths)
        self.checkpoint = Checkpoint(shards, None)
        self.plan = build_plan(
            self.checkpoint, lambda _: True, lambda infos, _, first: lay_out(infos, RULES, first_arena=first),
            extent_bytes=BLOCK_BYTES,
        )  # fmt: skip
        self.choices = {number: choose_reader(shard, "buffered") for number, shard in enumerate(shards)}
        self.tally = ProofTally()
        self.busy = Busy()
        self.repairs = True
        self.schedule = Schedule(self.plan.extents, window_bytes=window_bytes)
        self.sources: Sources | None = None
        self.lanes, self.slots_per_lane = LANES, SLOTS_PER_LANE

    def prove(self) -> None:
        """By blocks."""
        contents = {str(path): path.read_bytes() for path in self.paths}

        def wrap(choice: Choice) -> Choice:
            def open_proof(file: File) -> Reader:
                content = contents[file.path]
                blocks = [content[at : at + BLOCK_BYTES] for at in range(0, len(content), BLOCK_BYTES)]
                digests = [blake3(block).hexdigest() for block in blocks]
                hashing = lambda: self.busy.measure("hash")  # noqa: E731
                tell = ProofTell(self.tally, hashing, hashing, lambda: False)
                repair = (lambda wanted: blocks[wanted.index]) if self.repairs else (lambda _: None)
                return BlockProof(choice.open(file), file, digests, repair, tell)

            return replace(choice, open=open_proof)

        self.choices = {number: wrap(choice) for number, choice in self.choices.items()}

    def run(self, digesting: Any = None) -> None:
        """Bring all."""
        supply = Supply(lambda arena: allocate_on(DEVICE, self.plan.arena_bytes[arena]))
        self.placer = CudaPlacer(self.plan, supply, DEVICE, slot_bytes=BLOCK_BYTES, cast=None, digesting=digesting)
        ring = PinnedRing(DEVICE, BLOCK_BYTES, room_for_digests(BLOCK_BYTES), self.lanes * self.slots_per_lane)
        self.placer.use(ring, at_first=1, per_lane=self.slots_per_lane)
        self.sources = Sources(self.checkpoint.shards, self.choices, self.plan.extents)
        at = Workplace(self.plan, self.sources, self.placer, self.schedule, self.busy)
        workers = choose_ahead_workers(at, self.lanes)
        (worker,) = workers.needed
        pipeline = Pipeline(at, workers, Ways())
        pipeline.run(worker)
        try:
            self.schedule.check()
        finally:
            pipeline.close()
            self.placer.finish()
            assert not self.machine.registered

    def check(self) -> None:
        """All tensors are what was stored."""
        self.placer.catch_up()
        self.machine.run_all()
        for number, placement in enumerate(self.plan.placements):
            is_same = self.placer.take(number).numpy().tobytes() == self.expected[placement.info.name]
            assert is_same  # bare, since pytest would compare megabytes for minutes


@pytest.fixture
def load(machine: Machine, tmp_path: Path) -> Load:
    return Load(machine, tmp_path)


@pytest.mark.usefixtures("leaks_nothing")
@pytest.mark.parametrize("seed", range(6))
def test_all_arrives(load: Load, seed: int) -> None:
    load.machine.reseed(seed)
    load.run()
    load.check()
    assert load.sources is not None
    assert load.sources.describe()[0] == "buffered"


def test_several_reads_are_under_way_at_once(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    most: list[int] = []
    begin, wait = BackgroundRead.begin, BackgroundRead.wait

    def counting(*arguments: Any) -> Any:
        begun.append(1)
        most.append(len(begun))
        return begin(*arguments)

    def counted(read: BackgroundRead) -> bool:
        begun.pop()
        return wait(read)

    monkeypatch.setattr(BackgroundRead, "begin", counting)
    monkeypatch.setattr(BackgroundRead, "wait", counted)
    load.run()
    load.check()
    assert max(most) > LANES


def test_no_extent_is_asked_for_a_protocol(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """To recognise one takes more than all else that this thread does to begin a read."""
    noted: list[int] = []
    load.choices = {number: counted(choice, noted.append) for number, choice in load.choices.items()}
    load.prove()

    def recognise(protocol: type, _: object) -> bool:
        raise AssertionError(protocol)

    with monkeypatch.context() as patch:
        patch.setattr(type(GradualReader), "__instancecheck__", recognise)
        load.run()
    load.check()
    assert load.tally.verified == len(load.plan.extents)


@pytest.mark.parametrize("how", ["whole", "fails", "nothing is begun"])
def test_what_is_read_once_is_counted_once(load: Load, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    noted: list[int] = []
    load.choices = {number: counted(choice, noted.append) for number, choice in load.choices.items()}
    wait = BackgroundRead.wait
    if how == "fails":
        monkeypatch.setattr(BackgroundRead, "wait", lambda read: wait(read) and False)
    if how == "nothing is begun":
        monkeypatch.setattr(BackgroundRead, "begin", lambda *_: None)
    load.run()
    load.check()
    assert sum(noted) == load.plan.read_bytes


def test_what_is_abandoned_is_not_counted(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[int] = []
    came: list[int] = []
    load.choices = {number: counted(choice, noted.append) for number, choice in load.choices.items()}
    wait = BackgroundRead.wait

    def stopping(read: BackgroundRead) -> bool:
        if not load.schedule.is_stopped():  # those after it are abandoned
            came.extend(block.nbytes for block in read._blocks)
        load.schedule.stop()
        return wait(read)

    monkeypatch.setattr(BackgroundRead, "wait", stopping)
    load.run()
    assert sum(noted) == sum(came) < load.plan.read_bytes


def test_readers_get_their_next_work_before_what_has_come_is_sent_on(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def note(kind: type, name: str) -> None:
        method = getattr(kind, name)

        def noting(*arguments: Any) -> Any:
            done.append(name)
            return method(*arguments)

        monkeypatch.setattr(kind, name, noting)

    wait = BackgroundRead.wait

    def waiting(read: BackgroundRead) -> bool:
        load.machine.run_all()  # meanwhile
        done.append("wait")
        return wait(read)

    monkeypatch.setattr(BackgroundRead, "wait", waiting)
    note(BufferedReader, "begin")
    note(CudaLane, "place")
    load.run()
    load.check()
    assert ("wait", "begin") in pairwise(done)


def test_where_the_next_file_is_gone_what_has_come_is_let_go(load: Load, leaks_nothing: None) -> None:
    load.paths[2].unlink()
    with pytest.raises(FormatError, match=r"2\.safetensors"):
        load.run()


@pytest.mark.parametrize("device_digests", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_damage_is_found_and_mended_wherever_digests_are_taken(load: Load, seed: int, *, device_digests: bool) -> None:
    load.machine.reseed(seed)
    load.prove()
    chance = random.Random(seed)  # noqa: S311 - places
    for path in load.paths[:2]:
        content = bytearray(path.read_bytes())
        content[chance.randrange(1 << 20, len(content))] ^= 1
        rewrite(load, path, bytes(content))
    load.run((lambda nbytes: LateDigester(load.machine, nbytes)) if device_digests else None)
    load.check()
    blocks = sum(-(-path.stat().st_size // BLOCK_BYTES) for path in load.paths)
    assert (load.tally.verified, load.tally.ledger.repaired) == (blocks, 2)
    assert load.tally.on_device == (blocks if device_digests else 0)
    assert (load.busy.seconds["hash"] == 0) is device_digests


def test_a_block_that_nobody_has_ends_the_load_and_leaks_nothing(load: Load, leaks_nothing: None) -> None:
    load.repairs = False
    load.prove()
    content = bytearray(load.paths[1].read_bytes())
    content[5 << 20] ^= 1
    rewrite(load, load.paths[1], bytes(content))
    with pytest.raises(IntegrityError, match="block 1 at byte 4194304: found BLAKE3") as caught:
        load.run()
    assert (caught.value.path, caught.value.offset) == (str(load.paths[1]), BLOCK_BYTES)


def rewrite(load: Load, path: Path, content: bytes) -> None:
    """Other bytes, and all that a load looks at as before."""
    path.write_bytes(content)
    number = load.paths.index(path)
    header, identity = read_header(str(path))
    shards = list(load.checkpoint.shards)
    shards[number] = Shard(path.name, str(path), header, identity)
    load.checkpoint = Checkpoint(tuple(shards), None)


class Faults:
    """Breaks one call of one method of those that the thread makes."""

    POINTS: ClassVar = (
        (BufferedReader, "begin"), (BufferedReader, "check"), (BufferedReader, "check_path"), (CudaLane, "place"),
        (CudaLane, "buffers_for"), (CudaLane, "_settle_oldest"), (LaneStream, "_enter"), (CudaLane, "settle"),
        (CudaPlacer, "open_lane"), (Sources, "_open"), (Schedule, "finish"),
    )  # fmt: skip

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
        kind, name = chance.choice(self.POINTS)
        self.left = chance.randrange(1, 12)
        method = getattr(kind, name)

        def failing(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise IntegrityError(name, 0, "a fault", "none", "")
            return method(*arguments, **options)

        monkeypatch.setattr(kind, name, failing)

    @property
    def has_come(self) -> bool:
        return self.left <= 0


def read_badly(monkeypatch: pytest.MonkeyPatch, chance: random.Random) -> None:
    """Some reads cannot be begun; of some comes something else, and it is known that they are not whole."""
    begin, wait = BackgroundRead.begin, BackgroundRead.wait
    refused, spoilt = chance.choice([0, 0.3, 1]), chance.choice([0, 0.3, 1])

    def beginning(*arguments: Any) -> BackgroundRead | None:
        return None if chance.random() < refused else begin(*arguments)

    def waiting(read: BackgroundRead) -> bool:
        is_whole = wait(read)
        if chance.random() < spoilt:
            for block in read._blocks:
                ctypes.memset(block.address, 0x5A, block.nbytes)
            return False
        return is_whole

    monkeypatch.setattr(BackgroundRead, "begin", beginning)
    monkeypatch.setattr(BackgroundRead, "wait", waiting)


def run_beside_a_caller(load: Load, digesting: Any) -> Exception | None:
    """What the load ends by, whose caller takes one tensor after another."""
    ended: list[Exception | None] = []

    def work() -> None:
        with load.machine:  # which counts by thread
            try:
                load.run(digesting)
            except Exception as exc:  # noqa: BLE001 - whatever it is
                ended.append(exc)
            else:
                ended.append(None)

    thread = threading.Thread(target=work)
    thread.start()
    with suppress(FastloadError):
        for ready_after in load.plan.ready_after:
            load.schedule.wait_placed(ready_after, lambda _: None)
    thread.join(30)
    assert not thread.is_alive()
    return ended[0]


@pytest.mark.usefixtures("leaks_nothing")
@pytest.mark.parametrize("seed", range(20))
def test_whatever_fails_all_arrives_or_the_error_does(load: Load, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - what happens
    load.machine.reseed(seed)
    load.lanes, load.slots_per_lane = chance.choice([1, 1, 2, 3]), chance.choice([1, 2, 3])
    is_proven = chance.random() < 0.7
    if is_proven:
        load.prove()
        if chance.random() < 0.5:
            content = bytearray(load.paths[1].read_bytes())
            content[chance.randrange(1 << 20, len(content))] ^= 1
            rewrite(load, load.paths[1], bytes(content))
    window_bytes = chance.choice([None, 1, BLOCK_BYTES // 2, BLOCK_BYTES, 2 * BLOCK_BYTES, 5 * BLOCK_BYTES])
    load.schedule = Schedule(load.plan.extents, window_bytes=window_bytes)
    read_badly(monkeypatch, chance)
    faults = Faults(monkeypatch, chance) if chance.random() < 0.5 else None
    on_device = is_proven and chance.random() < 0.6
    error = run_beside_a_caller(load, (lambda nbytes: LateDigester(load.machine, nbytes)) if on_device else None)
    if faults is not None and faults.has_come:
        assert isinstance(error, IntegrityError)
        assert "a fault" in str(error)
    else:
        assert error is None
        load.check()


@pytest.mark.usefixtures("leaks_nothing")
@pytest.mark.parametrize("left", [2, 5, 20, 80])
def test_what_else_the_process_opens_finds_a_descriptor(load: Load, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """Where few are left they are not taken for reads under way: a server's connections want some too."""
    wait = BackgroundRead.wait

    def waiting(read: BackgroundRead) -> bool:
        os.close(os.open(os.devnull, os.O_RDONLY))
        return wait(read)

    monkeypatch.setattr(BackgroundRead, "wait", waiting)
    with few_descriptors(left):
        load.run()
    load.check()


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """The process may open so many more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    filled = [os.dup(0)]
    while filled[-1] <= highest:
        filled.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (filled[-1] + 1 + left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in filled:
            os.close(descriptor)


def test_readers_are_counted_by_the_cpus_near_the_device(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a lane goes there, and the threads that it begins inherit that."""
    cpus, limits = [16], list[int]()
    monkeypatch.setattr(choose, "count_cpus", lambda: Cpus(cpus[0]))
    monkeypatch.setattr(cuda, "go_near", lambda _: cpus.append(cpus.pop() // 2) if cpus[0] == 16 else None)
    monkeypatch.setattr(ahead, "limit_threads", limits.append)
    load.run()
    assert limits == [7]


@pytest.mark.parametrize("cut_bytes", [1, 9 << 20])
def test_a_file_that_shrinks_is_an_error_that_says_where(load: Load, leaks_nothing: None, cut_bytes: int) -> None:
    with open(load.paths[2], "r+b") as file:
        file.truncate(load.paths[2].stat().st_size - cut_bytes)
    with pytest.raises(IntegrityError, match="bytes in the file; expected") as caught:
        load.run()
    assert caught.value.path == str(load.paths[2])


def test_a_file_that_is_touched_is_an_error(load: Load, leaks_nothing: None) -> None:
    os.utime(load.paths[1])
    with pytest.raises(IntegrityError, match="mtime or ctime moved"):
        load.run()


@pytest.mark.parametrize("proven", [False, True])
def test_without_descriptors_or_threads_it_is_read_in_the_ordinary_way(
    load: Load, monkeypatch: pytest.MonkeyPatch, *, proven: bool
) -> None:
    if proven:
        load.prove()
    monkeypatch.setattr(BackgroundRead, "begin", lambda *_: None)
    load.run()
    load.check()
    monkeypatch.undo()


def test_closing_in_the_midst_abandons_what_is_under_way(
    load: Load, leaks_nothing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = BackgroundRead.wait
    abandoned: list[BackgroundRead] = []

    def stopping(read: BackgroundRead) -> bool:
        load.schedule.stop()
        return wait(read)

    abandon = BackgroundRead.abandon

    def noting(read: BackgroundRead) -> None:
        abandoned.append(read)
        abandon(read)

    monkeypatch.setattr(BackgroundRead, "wait", stopping)
    monkeypatch.setattr(BackgroundRead, "abandon", noting)
    load.run()
    assert abandoned


def test_a_window_is_kept_and_moves_on(machine: Machine, tmp_path: Path) -> None:
    """The caller takes tensor after tensor; what is under way when the window is full must still land."""
    load = Load(machine, tmp_path, window_bytes=2 * BLOCK_BYTES)
    load.prove()

    def work() -> None:
        with machine:  # which counts by thread
            load.run(lambda nbytes: LateDigester(machine, nbytes))

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(len(load.plan.placements)):
        load.schedule.wait_placed(load.plan.ready_after[number], lambda _: None)
    thread.join(20)
    assert not thread.is_alive()
    load.check()


def test_a_trace_shows_reads_that_overlap(load: Load) -> None:
    load.busy.trace = Trace()
    load.run()
    spans = [span for span in load.busy.trace.spans if span.lane.startswith("read in the background")]
    assert len(spans) == len(load.plan.extents)
    assert {span.facts["bytes"] for span in spans} >= {BLOCK_BYTES}
    by_begin = sorted(spans, key=lambda span: span.begin_s)
    assert any(later.begin_s < earlier.end_s for earlier, later in pairwise(by_begin))
    streams = {span.lane for span in load.busy.trace.spans if span.kind == "device"}
    assert len(streams) == LANES, "each stream has a row of its own"
    rows: dict[str, float] = {}
    for span in by_begin:
        assert rows.get(span.lane, 0.0) <= span.begin_s, "one row shows one read at a time"
        rows[span.lane] = span.end_s


def test_little_staging_memory_is_not_divided_into_many_slots() -> None:
    from fastload._budget import Headroom

    room = Headroom("memory", 1 << 40)
    assert divide_ahead(16 << 20, room) is None
    assert divide_ahead(256 << 20, Headroom("memory", 128 << 20)) is None
    for staging_bytes, slot_bytes in ((32 << 20, 8 << 20), (100 << 20, 16 << 20), (256 << 20, 32 << 20)):
        found = divide_ahead(staging_bytes, room)
        assert found is not None
        assert (found.slot_bytes, found.is_ahead) == (slot_bytes, True)
        assert found.bytes <= staging_bytes
