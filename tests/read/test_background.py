"""Reads that the C library's own threads carry out, of real files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fastload._read import background
from fastload._read.background import BackgroundRead, can_read_in_background

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    content = os.urandom(5 * MIB + 123)
    (tmp_path / "file").write_bytes(content)
    return content


@pytest.fixture
def descriptors(tmp_path: Path, content: bytes) -> Iterator[list[int]]:
    found = [os.open(tmp_path / "file", os.O_RDONLY) for _ in range(16)]
    yield found
    for descriptor in found:
        os.close(descriptor)


def begin(descriptors: int | list[int], offset: int, buffer: memoryview) -> BackgroundRead:
    each = descriptors if isinstance(descriptors, list) else [descriptors]
    read = BackgroundRead.begin(each, offset, buffer)
    assert read is not None
    return read


def test_it_can_be_done_here() -> None:
    assert can_read_in_background()


def test_many_at_once_bring_what_is_stored(descriptors: list[int], content: bytes) -> None:
    chance = random.Random(0)  # noqa: S311 - places
    for _ in range(20):
        spans = [
            (offset := chance.randrange(len(content)), chance.randrange(1, len(content) - offset + 1))
            for _ in descriptors
        ]
        buffers = [memoryview(bytearray(length)) for _, length in spans]
        reads = [begin(d, offset, b) for d, (offset, _), b in zip(descriptors, spans, buffers, strict=True)]
        chance.shuffle(order := list(range(len(reads))))
        for number in order:
            offset, length = spans[number]
            assert reads[number].wait()
            is_same = bytes(buffers[number]) == content[offset : offset + length]
            assert is_same


@pytest.mark.parametrize("pieces", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("length", [16, 17, 4096, 3 * MIB + 5])
def test_pieces_make_a_whole(descriptors: list[int], content: bytes, pieces: int, length: int) -> None:
    buffer = memoryview(bytearray(length))
    assert begin(descriptors[:pieces], 1001, buffer).wait()
    is_same = bytes(buffer) == content[1001 : 1001 + length]
    assert is_same


@pytest.mark.parametrize("pieces", [1, 4])
def test_beyond_the_end_of_the_file_it_is_not_whole(descriptors: list[int], content: bytes, pieces: int) -> None:
    buffer = memoryview(bytearray(100))
    assert not begin(descriptors[:pieces], len(content) - 30, buffer).wait()
    assert bytes(buffer) == content[-30:] + bytes(70)
    assert not begin(descriptors[:pieces], len(content), buffer).wait()


def test_an_error_makes_it_no_whole(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "written", os.O_WRONLY | os.O_CREAT)
    try:
        assert not begin(descriptor, 0, memoryview(bytearray(10))).wait()
    finally:
        os.close(descriptor)


def test_what_is_abandoned_writes_no_more(descriptors: list[int]) -> None:
    for _ in range(50):
        buffers = [memoryview(bytearray(2 * MIB)) for _ in descriptors]
        reads = [begin(d, 0, buffer) for d, buffer in zip(descriptors, buffers, strict=True)]
        for read in reads:
            read.abandon()
        before = [bytes(buffer[:: MIB // 4]) for buffer in buffers]
        assert [bytes(buffer[:: MIB // 4]) for buffer in buffers] == before


def test_the_buffer_lives_as_long_as_somebody_writes_to_it(descriptors: list[int]) -> None:
    import mmap

    area = mmap.mmap(-1, MIB)
    read = begin(descriptors[0], 0, memoryview(area))
    with pytest.raises(BufferError):
        area.close()
    read.wait()
    del read
    area.close()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "confstr", lambda _: "musl 1.2.5")
    background._load_calls.cache_clear()
    try:
        assert not can_read_in_background()
        assert BackgroundRead.begin([0], 0, memoryview(bytearray(1))) is None
    finally:
        background._load_calls.cache_clear()


def test_no_more_threads_than_wanted(tmp_path: Path, content: bytes) -> None:
    """In a process of its own, since what is first said counts."""
    code = f"""
import os
from fastload._read.background import BackgroundRead, limit_threads
limit_threads(3)
descriptors = [os.open({str(tmp_path / "file")!r}, os.O_RDONLY) for _ in range(12)]
before = len(os.listdir("/proc/self/task"))
buffers = [memoryview(bytearray({len(content)})) for _ in descriptors]
most = 0
for _ in range(20):
    reads = [BackgroundRead.begin([d], 0, b) for d, b in zip(descriptors, buffers)]
    most = max(most, len(os.listdir("/proc/self/task")))
    print(sum(read.wait() for read in reads))
print(most - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    *counts, threads = run.stdout.split()
    assert counts == ["12"] * 20
    assert 1 <= int(threads) <= 3


@pytest.mark.parametrize("limit", [None, 200])
def test_room_is_made_for_many_descriptors(limit: int | None) -> None:
    """In a process of its own, since it keeps the room. Where so many are not allowed, there is nothing to do."""
    code = f"""
import resource
from fastload._read.background import begin_descriptor_room
if {limit}:
    resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
begin_descriptor_room()()
begin_descriptor_room()()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("FDSize")))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not run.stderr
    assert (int(run.stdout) > 256) is (limit is None)


def test_without_another_thread_no_room_is_made_and_nothing_fails() -> None:
    code = """
import threading
from fastload._read.background import begin_descriptor_room
def refuse(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
begin_descriptor_room()()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
