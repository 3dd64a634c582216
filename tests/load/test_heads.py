"""Headers with the blocks around them: read and proven on several threads, believed one after another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import fastload
from fastload import IntegrityError, Options
from fastload._cpus import Cpus
from fastload._fetch.workers import Workers
from fastload._verify.digest import BLOCK_BYTES
from fastload.ops.bench.page_cache import PageCacheError, evict, measure_residency
from proven_models import flip
from stopwatch import Stopwatch
from writing import pack

SHARDS = 9
PIECE_BYTES = 1 << 20
LENGTHS = [1, PIECE_BYTES - 9, PIECE_BYTES - 8, PIECE_BYTES, BLOCK_BYTES - 8, BLOCK_BYTES - 7, 2 * BLOCK_BYTES + 7]


@pytest.fixture(autouse=True)
def _four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastload._fetch.checkpoint.folder.count_cpus", lambda: Cpus(4))


def write_recorded(folder: Path, padding_bytes: list[int], data_bytes: int = 100) -> dict[str, bytes]:
    """Shards with that much in their headers besides one tensor, and a manifest; the tensors' bytes by name."""
    folder.mkdir()
    content = {f"t{number}": bytes([number]) * data_bytes for number in range(len(padding_bytes))}
    for padding, (name, data) in zip(padding_bytes, content.items(), strict=True):
        metadata = {"padding": "x" * padding}
        (folder / f"{name}.safetensors").write_bytes(pack({name: ("U8", [data_bytes], data)}, metadata))
    assert fastload.verify(folder, record=True).recorded
    return content


def load(folder: Path) -> dict[str, bytes]:
    return {name: bytes(tensor.numpy()) for name, tensor in fastload.load(folder).items()}


@pytest.mark.parametrize("length", LENGTHS)
def test_headers_of_any_length_are_proven(tmp_path: Path, length: int) -> None:
    """They end at the edge of what is read at once, of a block, and beyond."""
    bare = len(pack({"t1": ("U8", [100], bytes(100))}, {"padding": ""})) - 100 - 8
    content = write_recorded(tmp_path / "model", [0, max(0, length - bare), 0])
    weights = fastload.load(tmp_path / "model")
    assert {name: bytes(tensor.numpy()) for name, tensor in weights.items()} == content
    assert weights.report.evidence == "manifest (recorded)"


@pytest.mark.parametrize("is_recorded", [False, True])
def test_no_more_of_a_cold_file_is_brought_than_its_header_needs(tmp_path: Path, *, is_recorded: bool) -> None:
    """Storage would be asked twice for what the kernel brings in behind it: the weights may be read past its cache."""
    nbytes = 16 * BLOCK_BYTES
    write_recorded(tmp_path / "model", [0], nbytes)
    shard = tmp_path / "model" / "t0.safetensors"
    if not is_recorded:
        shutil.rmtree(tmp_path / "model" / ".fastload")
    try:
        evict([str(shard)], may_drop_all=False)
    except PageCacheError as exc:
        pytest.skip(f"not on this file system: {exc}")
    assert fastload.inspect(tmp_path / "model").tensors["t0"].shape == (nbytes,)
    brought_bytes = BLOCK_BYTES if is_recorded else BLOCK_BYTES // 16
    assert measure_residency([str(shard)]) * os.path.getsize(shard) <= brought_bytes + os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("at", [20, PIECE_BYTES + 5, BLOCK_BYTES - 1, BLOCK_BYTES, 2 * BLOCK_BYTES])
def test_a_wrong_bit_in_a_long_header_is_found_before_it_is_believed(tmp_path: Path, at: int) -> None:
    folder = tmp_path / "model"
    write_recorded(folder, [0, 2 * BLOCK_BYTES, 0])
    flip(folder / "t1.safetensors", at)
    with pytest.raises(IntegrityError, match=r"t1\.safetensors") as caught:
        load(folder)
    assert caught.value.offset == at // BLOCK_BYTES * BLOCK_BYTES


@pytest.mark.parametrize("at", [0, 20, BLOCK_BYTES - 1])
def test_several_are_mended_from_another_tier(tmp_path: Path, at: int) -> None:
    (tmp_path / "shared").mkdir()
    content = write_recorded(tmp_path / "shared" / "model", [0] * SHARDS, BLOCK_BYTES)
    options = Options(local=str(tmp_path / "local"), shared=str(tmp_path / "shared"), tiers=("local", "shared"))
    snapshot = fastload.warm("model", options=options).path
    for number in range(1, SHARDS, 2):
        flip(Path(snapshot) / f"t{number}.safetensors", at)
    weights = fastload.load("model", options=options)
    assert {name: bytes(tensor.numpy()) for name, tensor in weights.items()} == content
    assert (weights.report.tier, weights.report.blocks_repaired) == ("local", SHARDS // 2)
    assert fastload.load("model", options=options).report.blocks_repaired == 0


@pytest.mark.parametrize("turn", range(5))
def test_of_several_wrong_shards_the_first_one_is_named(tmp_path: Path, turn: int) -> None:
    folder = tmp_path / "model"
    write_recorded(folder, [0] * SHARDS, BLOCK_BYTES)
    for number in range(turn, SHARDS):
        flip(folder / f"t{number}.safetensors", 20)
    with pytest.raises(IntegrityError, match=f"t{turn}.safetensors"):
        load(folder)


@pytest.mark.parametrize("bunch", [1, 64])
def test_a_wrong_shard_is_named_before_those_behind_it_however_long_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bunch: int
) -> None:
    monkeypatch.setattr("fastload._fetch.checkpoint.folder._BUNCH", bunch)
    folder = tmp_path / "model"
    write_recorded(folder, [2 * BLOCK_BYTES, *[0] * 4], BLOCK_BYTES)
    flip(folder / "t0.safetensors", BLOCK_BYTES + 5)
    flip(folder / "t3.safetensors", 20)
    with pytest.raises(IntegrityError, match=r"t0\.safetensors"):
        load(folder)


@pytest.mark.parametrize("bunch", [1, 4, SHARDS])
def test_heads_are_parsed_in_bunches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bunch: int) -> None:
    monkeypatch.setattr("fastload._fetch.checkpoint.folder._BUNCH", bunch)
    folder = tmp_path / "model"
    content = write_recorded(folder, [0] * SHARDS, BLOCK_BYTES)
    assert load(folder) == content
    flip(folder / "t6.safetensors", 20)
    with pytest.raises(IntegrityError, match=r"t6\.safetensors"):
        load(folder)


def test_none_of_the_threads_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    content = write_recorded(folder, [0] * SHARDS, BLOCK_BYTES)
    before = set(threading.enumerate())
    assert load(folder) == content
    flip(folder / "t4.safetensors", 20)
    with pytest.raises(IntegrityError):
        load(folder)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("wrong", ["t1.safetensors", ""])
def test_without_another_thread_one_does_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    folder = tmp_path / "model"
    content = write_recorded(folder, [0] * SHARDS, BLOCK_BYTES)
    if wrong:
        flip(folder / wrong, 20)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("fastload-work"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    if wrong:
        with pytest.raises(IntegrityError, match=wrong):
            load(folder)
    else:
        assert load(folder) == content


@pytest.mark.parametrize(("items", "threads"), [(1, 1), (2, 2), (9, 4)])
def test_no_more_threads_than_items_and_the_caller_is_one_of_them(items: int, threads: int) -> None:
    """Each waits until all that should be there are."""
    together = threading.Barrier(threads)
    seen = set[int]()

    def work(item: int) -> int:
        if item < threads:
            together.wait(timeout=20)
        seen.add(threading.get_ident())
        return item * item

    assert list(Workers(4, lambda: None).each(work, range(items))) == [item * item for item in range(items)]
    assert threading.get_ident() in seen and len(seen) == threads


def test_nothing_more_is_begun_once_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way when the caller goes is left behind; that it ends later brings nothing else along.

    The first item is the caller's, and what the other thread takes then lasts until he has gone.
    """
    begun: list[int] = []
    taken, gone = threading.Event(), threading.Event()
    before, run = set(threading.enumerate()), threading.Thread.run

    def run_later(thread: threading.Thread) -> None:
        taken.wait(timeout=60)
        run(thread)

    def work(item: int) -> int:
        begun.append(item)
        taken.set()
        if item:
            gone.wait(timeout=60)
        return item

    monkeypatch.setattr(threading.Thread, "run", run_later)
    results = Workers(2, lambda: None).each(work, range(10_000))
    assert next(results) == 0
    results.close()
    gone.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=60)
    assert set(threading.enumerate()) <= before
    assert len(begun) <= 2


def test_no_thread_outlives_whoever_asked_for_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it does not hang: here, however long a machine that is busy takes for it."""
    monkeypatch.setattr("fastload._fetch.workers.JOIN_S", 60.0)
    before = set(threading.enumerate())

    def work(item: int) -> int:
        time.sleep(0.05)
        return item

    results = Workers(4, lambda: None).each(work, range(10_000))
    assert next(results) == 0
    results.close()
    assert set(threading.enumerate()) <= before


def test_the_time_is_over_between_two_headers() -> None:
    """Whoever waits for all of them is told so by the first that was not begun."""
    workers = Workers(3, lambda: None)

    def work(item: int) -> int:
        workers.go_on()
        if item == 2:
            raise fastload.DeadlineError(1, "a test", "Give it longer")
        return item

    results = workers.each(work, range(50))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(fastload.DeadlineError):
        next(results)


_INTERRUPTED = """
import os, signal, sys, threading, time, torch, fastload
from fastload._cpus import Cpus
from fastload._fetch.checkpoint import folder
signal.signal(signal.SIGINT, signal.default_int_handler)
folder.count_cpus = lambda: Cpus(4)
hangs_s = float(sys.argv[2])
real = os.preadv
def slow(descriptor, buffers, offset):
    if threading.active_count() > 2:  # the manifest has been read, and the threads have begun
        os.write(1, b"ready\\n")
        time.sleep(hangs_s)
    return real(descriptor, buffers, offset)
os.preadv = slow
try:
    fastload.load(sys.argv[1])
except KeyboardInterrupt:
    print("stopped", flush=True)
    while threading.active_count() > 1:  # what hung ends with the file that it was in
        time.sleep(0.01)
    print([thread.name for thread in threading.enumerate()])
"""


@pytest.mark.parametrize("hangs_s", [0.05, 2])
def test_interrupt_ends_it_within_a_second(tmp_path: Path, hangs_s: float) -> None:
    """While the storage under several headers is slow, or hangs."""
    write_recorded(tmp_path / "model", [0] * 16, PIECE_BYTES)
    command = [sys.executable, "-c", _INTERRUPTED, str(tmp_path / "model"), str(hangs_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        with Stopwatch(process.pid) as watch:
            while (line := process.stdout.readline()) == "ready\n":
                pass
        assert line == "stopped\n"
        assert watch.seconds < 1
        while (line := process.stdout.readline()) == "ready\n":
            pass
        assert line == "['MainThread']\n"
        assert process.wait(10) == 0


_UNNOTICED = """
import os, signal, sys, threading, time, torch, fastload
signal.signal(signal.SIGINT, signal.default_int_handler)
real, sent = os.preadv, []
def slow(descriptor, buffers, offset):
    if threading.active_count() > 2:
        if not sent:
            sent.append(offset)
            time.sleep(0.3)  # until the main thread waits for this one
            os.write(1, b"sent\\n")
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        time.sleep(3)
    return real(descriptor, buffers, offset)
os.preadv = slow
try:
    getattr(fastload, sys.argv[2])(sys.argv[1])
except KeyboardInterrupt:
    print("stopped", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("verb", ["load", "verify"])
def test_an_interrupt_that_ends_no_waiting_is_noticed_within_a_second(tmp_path: Path, verb: str) -> None:
    """As one that comes right before the main thread begins to wait: here, another thread gets it."""
    write_recorded(tmp_path / "model", [0] * 16, PIECE_BYTES)
    command = [sys.executable, "-c", _UNNOTICED, str(tmp_path / "model"), verb]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        with Stopwatch(process.pid) as watch:
            assert process.stdout.readline() == "stopped\n"
        assert watch.seconds < 1


def test_the_deadline_ends_it_while_storage_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    write_recorded(folder, [0] * SHARDS, PIECE_BYTES)
    load(folder)  # to import torch takes time, too
    before, real, hang = set(threading.enumerate()), os.preadv, threading.Event()

    def hanging(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if threading.current_thread().name.startswith("fastload-work"):
            hang.wait(30)
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", hanging)
    with Stopwatch() as watch, pytest.raises(fastload.DeadlineError):
        fastload.load(folder, options=Options(deadline=1))
    assert watch.seconds < 2.5
    hang.set()
    until_s = time.monotonic() + 20
    while not set(threading.enumerate()) <= before and time.monotonic() < until_s:
        time.sleep(0.01)
    assert set(threading.enumerate()) <= before
