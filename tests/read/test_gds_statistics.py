"""cuFile's statistics, in both forms that it writes them; golden offsets are those of ``cufile.h`` 1.17 and 1.20."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest

from fastload._read.gds_statistics import ReadCounts, Statistics, parse_counts
from fastload.errors import UnsupportedError

ROOM_BYTES = 16 << 10
LEVEL_2_BYTES = {"1.17": 1024, "1.20": 1136}


def gpu(p2p: int, nvfs: int, posix: int) -> bytes:
    """``CUfilePerGpuStats``: a UUID and 29 counts, of which these are the sixth to the eighth."""
    counts = [7 << 30, 0, 0, 0, p2p + nvfs + posix, p2p, nvfs, posix, *[0] * 20, 16 << 20]
    return b"U" * 16 + struct.pack("<29Q", *counts)


def written(version: str, *gpus: bytes, places: int | None = None) -> bytes:
    """What cuFile leaves in the room that it was given."""
    blank = [bytes(248)] * ((len(gpus) if places is None else places) - len(gpus))
    parts = [bytes(LEVEL_2_BYTES[version]), struct.pack("<II", len(gpus), 0), *gpus, *blank]
    return b"".join(parts).ljust(ROOM_BYTES, b"\xa5")


@pytest.mark.parametrize("version", LEVEL_2_BYTES)
@pytest.mark.parametrize("places", [None, 16])
def test_reads_of_all_gpus_are_added_up(version: str, places: int | None) -> None:
    one = written(version, gpu(0, 40, 0), places=places)
    assert parse_counts(one) == ReadCounts(past_host=40, posix=0)
    two = written(version, gpu(5, 40, 1), gpu(3, 0, 2), places=places)
    assert parse_counts(two) == ReadCounts(past_host=48, posix=3)
    sixteen = written(version, *[gpu(1, 1, 1)] * 16)
    assert parse_counts(sixteen) == ReadCounts(past_host=32, posix=16)


@pytest.mark.parametrize(("version", "end"), [("1.17", 1028), ("1.20", 1140)])
def test_a_machine_without_gpus(version: str, end: int) -> None:
    """As measured: cuFile writes up to the number and no further."""
    room = bytes(end).ljust(ROOM_BYTES, b"\xa5")
    assert parse_counts(room) == ReadCounts(0, 0), version


@pytest.mark.parametrize("end", [0, 500, 1000, 1100, 1144 + 248 * 3 + 8, ROOM_BYTES])
def test_another_form_is_not_guessed_at(end: int) -> None:
    filled = (b"\x01" * end).ljust(ROOM_BYTES, b"\xa5")
    with pytest.raises(UnsupportedError, match="a form that is not known"):
        parse_counts(filled)


@pytest.mark.parametrize(
    ("counts", "is_gds"),
    [(ReadCounts(9, 0), True), (ReadCounts(9, 1), False), (ReadCounts(0, 9), False), (ReadCounts(0, 0), False)],
)
def test_only_reads_that_all_went_past_the_host_are_gds(counts: ReadCounts, *, is_gds: bool) -> None:
    assert counts.is_gds is is_gds
    assert counts.since(ReadCounts(0, 0)) == counts
    assert ReadCounts(10, 3).since(ReadCounts(4, 3)) == ReadCounts(6, 0)


class Library:
    """As libcufile, compiled: functions that return a status and write to where a pointer leads."""

    def __init__(self, room: bytes, code: int = 0) -> None:
        self.called: list[Any] = []

        def level(number: int) -> Any:
            self.called.append(number)
            return Status(0)

        def start() -> Any:
            self.called.append("start")
            return Status(code)

        def read(pointer: Any) -> Any:
            ctypes.memmove(pointer._obj, room, len(room))
            return Status(0)

        self.cuFileSetStatsLevel, self.cuFileStatsStart, self.cuFileGetStatsL3 = map(Function, (level, start, read))


class Status:
    """As ``CUfileError_t``."""

    def __init__(self, code: int) -> None:
        self.code = code


class Function:
    """As ctypes', which has a ``restype``."""

    restype: Any = None

    def __init__(self, call: Any) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        assert self.restype is not None
        return self._call(*arguments)


def test_statistics_are_started_and_read() -> None:
    library = Library(written("1.20", gpu(0, 2, 0)))
    statistics = Statistics(library)
    statistics.start()
    assert library.called == [3, "start"]
    assert statistics.read() == ReadCounts(2, 0)


def test_a_driver_that_is_not_open_has_none() -> None:
    with pytest.raises(UnsupportedError, match="cuFileStatsStart with error 5001"):
        Statistics(Library(b"", code=5001)).start()


def test_an_old_cufile_has_none() -> None:
    with pytest.raises(UnsupportedError, match="this cuFile has no cuFileSetStatsLevel"):
        Statistics(object()).start()
