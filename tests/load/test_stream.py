"""A stream reads ahead, not too far, and stops when it is closed."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fastload
from hand_clock import HandClock, wait_for_workers
from kernel_account import read_so_far
from models import MIB, assert_same, save_large, save_sharded
from own_memory import in_child
from stopwatch import Stopwatch

if TYPE_CHECKING:
    from types import FrameType

pytestmark = pytest.mark.usefixtures("leaks_nothing")

SMALL_STAGING = fastload.Options(staging_bytes=8 * MIB)


def _workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastload")]


def test_a_stream_shows_nothing_that_only_loading_uses() -> None:
    assert {name for name in vars(fastload.Stream) if not name.startswith("_")} == {"close", "report", "start_trace"}


def test_order_is_that_of_the_files(tmp_path: Path) -> None:
    content = save_large(tmp_path, 20, MIB)
    assert [name for name, _ in fastload.stream(tmp_path)] == list(content)


def test_next_tensors_are_read_while_the_caller_works(tmp_path: Path) -> None:
    save_large(tmp_path)
    with fastload.stream(tmp_path, reader="buffered") as stream:
        next(stream)
        before = read_so_far()
        deadline = time.monotonic() + 10
        while _workers() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_so_far() - before > 32 * MIB or not _workers()
        assert not _workers()  # all is read, though one of sixteen was taken


def test_reading_runs_ahead_by_the_window_and_no_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_large(tmp_path, 32, 2 * MIB)
    clock = HandClock(monkeypatch)
    with fastload.stream(tmp_path, reader="buffered", options=SMALL_STAGING) as stream:
        next(stream)
        before = read_so_far()
        wait_for_workers()
        clock.pass_hour()
        assert read_so_far() - before < 24 * MIB
        assert _workers()
        assert sum(1 for _ in stream) == 31
    assert stream.report.bound_by == "caller"


def test_tensor_larger_than_the_window_comes_whole(tmp_path: Path) -> None:
    content = save_large(tmp_path, 3, 40 * MIB)
    assert_same(dict(fastload.stream(tmp_path, options=SMALL_STAGING)), content)


def test_closing_early_stops_the_threads(tmp_path: Path) -> None:
    save_large(tmp_path, 32, 2 * MIB)
    stream = fastload.stream(tmp_path, options=SMALL_STAGING)
    taken = dict(itertools.islice(stream, 3))
    with Stopwatch() as watch:
        stream.close()
    assert watch.seconds < 1
    assert not _workers()
    assert stream.report.tensors == 3
    assert list(stream) == []
    assert [tensor.nbytes for tensor in taken.values()] == [2 * MIB] * 3


def test_breaking_out_of_the_loop_is_closing(tmp_path: Path) -> None:
    save_large(tmp_path, 32, 2 * MIB)
    for _name, _tensor in fastload.stream(tmp_path, options=SMALL_STAGING):
        break
    gc.collect()
    assert not _workers()


def test_stream_that_nobody_iterates_starts_nothing(tmp_path: Path) -> None:
    save_large(tmp_path, 2, MIB)
    stream = fastload.stream(tmp_path)
    assert not _workers()
    with pytest.raises(fastload.UsageError, match="Iterate to its end"):
        _ = stream.report
    stream.close()
    stream.close()
    assert stream.report.bytes == 0


def test_a_forked_child_is_told_to_open_its_own(tmp_path: Path) -> None:
    """Its copy has no threads that would bring anything, and locks that they held stay locked."""
    save_large(tmp_path, 32, 2 * MIB)
    stream = fastload.stream(tmp_path, options=SMALL_STAGING)
    next(stream)

    def is_refused() -> bool:
        signal.alarm(20)  # ends the child should it wait
        with pytest.raises(fastload.UsageError, match="each process"):
            next(stream)
        stream.close()
        with fastload.stream(tmp_path) as own:
            return next(own)[0] == "layer.000.weight"

    assert stream._job is not None
    with stream._job.schedule._changed:  # as a worker may at that moment
        assert in_child(is_refused)
    assert sum(1 for _ in stream) == 31


def test_a_stream_that_has_not_begun_may_begin_in_a_forked_child(tmp_path: Path) -> None:
    content = save_large(tmp_path, 4, MIB)
    with fastload.stream(tmp_path) as stream:
        assert in_child(lambda: [name for name, _ in stream] == list(content))
        assert [name for name, _ in stream] == list(content)


def test_many_shards_do_not_need_many_descriptors(tmp_path: Path) -> None:
    """One descriptor per shard would end a checkpoint of hundreds of shards at the usual limit of 1024."""
    shards = {
        f"model-{i:05}-of-00300.safetensors": {f"t{i}": t for t in save_large(tmp_path, 1, 64).values()}
        for i in range(1, 301)
    }
    (tmp_path / "model.safetensors").unlink()
    save_sharded(tmp_path, shards)
    most = max(len(list(Path("/proc/self/fd").iterdir())) for _ in fastload.stream(tmp_path))
    assert most < 64


def test_a_stream_that_is_collected_on_one_of_its_own_workers_leaks_nothing(tmp_path: Path) -> None:
    """As one in a reference cycle may be: a worker cannot wait for itself, nor for a lock that it holds."""
    save_large(tmp_path, 24, 4 * MIB)
    collectors: list[str] = []
    for _ in range(100):
        _drop_while_workers_collect(tmp_path, collectors)
        if any(name.startswith("fastload") for name in collectors):
            break
    assert any(name.startswith("fastload") for name in collectors)
    end_s = time.monotonic() + 10
    while _workers():
        assert time.monotonic() < end_s
        time.sleep(0.01)
    links = (f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd"))
    assert not [link for link in links if os.path.lexists(link) and str(tmp_path) in os.readlink(link)]


def _drop_while_workers_collect(folder: Path, collectors: list[str]) -> None:
    """Drop a stream that is in a cycle; ``collectors`` gets the name of the thread that collects it."""
    is_dropped = threading.Event()

    def collect(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and is_dropped.is_set():
            is_dropped.clear()
            gc.collect()

    gc.disable()
    threading.setprofile(collect)
    try:
        stream = fastload.stream(folder, options=fastload.Options(staging_bytes=32 * MIB))
        next(stream)
        weakref.finalize(stream, lambda: collectors.append(threading.current_thread().name))
        cycle: list[object] = [stream]
        cycle.append(cycle)
        del stream, cycle
        is_dropped.set()
        time.sleep(0.05)
    finally:
        threading.setprofile(None)
        gc.enable()
        gc.collect()


def test_second_consumer_gets_an_error_and_loses_nothing(tmp_path: Path) -> None:
    content = save_large(tmp_path, 4, MIB)
    is_taking, may_go_on = threading.Event(), threading.Event()

    def wait(_done: int, _total: int) -> None:
        is_taking.set()
        may_go_on.wait(10)

    taken: list[str] = []
    stream = fastload.stream(tmp_path, progress=wait)
    first = threading.Thread(target=lambda: taken.extend(name for name, _ in stream))
    first.start()
    assert is_taking.wait(10)
    try:
        with pytest.raises(fastload.UsageError, match="another thread"):
            next(stream)
    finally:
        may_go_on.set()
        first.join()
    assert taken == list(content)


def test_many_consumers_lose_nothing(tmp_path: Path) -> None:
    content = save_large(tmp_path, 64, MIB)
    stream = fastload.stream(tmp_path)
    taken: list[str] = []

    def take() -> None:
        while len(taken) < len(content):
            try:
                for name, _ in stream:
                    taken.append(name)
            except fastload.UsageError:
                time.sleep(0)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(content)


def test_asking_from_within_is_an_error(tmp_path: Path) -> None:
    save_large(tmp_path, 4, MIB)
    streams: list[fastload.Stream] = []

    def ask(_done: int, _total: int) -> None:
        next(streams[0])

    stream = fastload.stream(tmp_path, progress=ask)
    streams.append(stream)
    with pytest.raises(fastload.UsageError, match="from within"):
        next(stream)
    streams.clear()


def test_closing_in_another_thread_ends_who_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_large(tmp_path, 4, MIB)
    is_reading, may_read = threading.Event(), threading.Event()
    preadv = os.preadv

    def hang(*args: Any) -> int:
        if threading.current_thread().name.startswith("fastload"):
            is_reading.set()
            may_read.wait(10)
        return preadv(*args)

    monkeypatch.setattr(os, "preadv", hang)
    stream = fastload.stream(tmp_path, reader="buffered")
    errors: list[BaseException] = []

    def take() -> None:
        try:
            next(stream)
        except fastload.UsageError as error:
            errors.append(error)

    waiting = threading.Thread(target=take)
    waiting.start()
    assert is_reading.wait(10)
    threading.Timer(0.1, may_read.set).start()
    stream.close()
    waiting.join(10)
    assert "closed" in str(errors[0])
    assert stream.report.tensors == 0


def test_a_large_tensor_dies_without_running_python(tmp_path: Path) -> None:
    """Where it did, Ctrl-C was lost: what a signal's handler raises within a finaliser is only printed."""
    save_large(tmp_path, 8, 2 * MIB)
    called: list[str] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            called.append(frame.f_code.co_qualname)

    for _name, tensor in fastload.stream(tmp_path, reader="buffered"):
        sys.setprofile(note)
        del tensor
        sys.setprofile(None)
    assert called == []
