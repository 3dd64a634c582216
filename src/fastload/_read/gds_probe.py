"""What the probe does in its process: read a part of a file both ways, compare the bytes, and take the time.

Run by :mod:`fastload._read.gds_verdict`, never by a load itself. Four things must hold: cuFile's bytes are those that
``pread`` gives; its statistics say that all of them went past the host; descriptor 0 is still what it was; and the way
past the host was faster than the one through pinned host memory, at the same number of reads in flight.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import TYPE_CHECKING

from fastload._address_space import address_of, map_private
from fastload._read.cuda_driver import load_driver
from fastload._read.file import identify
from fastload._read.gds import CuFiles, import_kvikio
from fastload._read.gds_health import GdsHealth
from fastload._read.gds_statistics import load_statistics
from fastload._read.gds_verdict import Question, Verdict
from fastload._read.pread import DirectReader
from fastload._read.reader import PlainFile
from fastload.errors import FastloadError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastload._read.cuda_driver import CudaDriver, DeviceMemory
    from fastload._read.gds import CuFileReader
    from fastload._read.gds_statistics import Statistics

_LANES = 8
_READ_BYTES = 16 << 20  # 16 MiB, as large as a load's extents
_READS = 16
"""In a turn: two for each lane, 256 MiB."""
_TURNS = 2
_MARGIN = 1.05
"""By so much it must be faster: a load overlaps its copies to the device with its reads, and the race does not."""
_CHECKED = 4
"""So many reads are compared byte by byte, which takes no part in the time."""


def main() -> None:
    """Answer the question in ``argv[1]`` by one line of JSON."""
    question = Question(**json.loads(sys.argv[1]))
    signal.alarm(question.limit_s)  # its default action ends this process even in the midst of a C library's loop
    try:
        verdict = answer(question)
    except UnsupportedError as exc:
        verdict = Verdict(is_on=False, reason=str(exc), lasts=not _is_device_full())
    except (FastloadError, OSError) as exc:  # of this file, or of the host's memory
        verdict = Verdict(is_on=False, reason=str(exc), lasts=False)
    sys.stdout.write(json.dumps(asdict(verdict)) + "\n")
    sys.stdout.flush()  # now: the libraries' own end may hang as their beginning may


def _is_device_full() -> bool:
    """True where the device had no memory left: mostly because the load that asks is filling it."""
    try:
        return load_driver().ran_out
    except UnsupportedError:
        return False


def answer(question: Question) -> Verdict:
    """The verdict, of a process that nothing else depends on.

    Raises:
        FastloadError: the driver, cuFile or the file does not play along.
    """
    before = os.fstat(0)
    driver = load_driver()
    driver.enter(question.ordinal)  # cuFile's driver does not open before the first call to CUDA
    files = CuFiles(import_kvikio(), health=GdsHealth(), compat_mode=question.compat_mode)
    file = PlainFile(question.path, identify(os.stat(question.path)))
    with closing(files.open(file)) as reader, closing(DirectReader(file)) as host, ExitStack() as held:
        statistics = load_statistics()
        statistics.start()
        lanes = [_Lane(driver, question.ordinal, files, held) for _ in range(_LANES)]
        verdict = judge(reader, host, lanes, statistics)
    return verdict if _is_still_open(before) else Verdict(is_on=False, reason="cuFile closed descriptor 0, not its own")


def _is_still_open(before: os.stat_result) -> bool:
    try:
        return os.path.samestat(before, os.fstat(0))
    except OSError:
        return False


class _Lane:
    """Memory for one read at a time: on the device, and pinned on the host."""

    def __init__(self, driver: CudaDriver, ordinal: int, files: CuFiles, held: ExitStack) -> None:
        self._driver = driver
        self._ordinal = ordinal
        self.memory: DeviceMemory = driver.allocate(_READ_BYTES)
        held.callback(driver.free, self.memory)
        files.register(self.memory)
        held.callback(files.release, self.memory)
        self.host = memoryview(map_private(_READ_BYTES))
        self._address = address_of(self.host)
        driver.pin(self._address, _READ_BYTES)
        held.callback(driver.unpin, self._address)

    def enter(self) -> None:
        """Called on the thread that uses it."""
        self._driver.enter(self._ordinal)

    def to_device(self) -> None:
        self._driver.copy_to_device(self.memory, self._address, _READ_BYTES)

    def to_host(self) -> None:
        self._driver.copy_to_host(self._address, self.memory, _READ_BYTES)


def judge(reader: CuFileReader, host: DirectReader, lanes: Sequence[_Lane], statistics: Statistics) -> Verdict:
    """Compare, count and race.

    Raises:
        FastloadError: one of the ways failed.
    """
    offsets = _spread(reader.file_bytes)
    if not offsets:
        return Verdict(is_on=False, reason="the file is too small to be probed", lasts=False)
    before = statistics.read()
    wrong = [offset for offset in offsets[:_CHECKED] if not _is_same(reader, host, lanes[0], offset)]
    if wrong:
        return Verdict(is_on=False, reason=f"cuFile brought other bytes than pread at {wrong[0]:,}")

    def past_host(lane: _Lane, offset: int) -> None:
        reader.read_onto(lane.memory, offset, _READ_BYTES)

    def through_host(lane: _Lane, offset: int) -> None:
        host.read_into(offset, [lane.host])
        lane.to_device()

    seconds: dict[str, list[float]] = {"past": [], "through": []}
    for _ in range(_TURNS):
        seconds["past"].append(_race(lanes, offsets, past_host))
        seconds["through"].append(_race(lanes, offsets, through_host))
    counts = statistics.read().since(before)
    if not counts.is_gds:
        reason = f"cuFile read through the host: {counts.posix} reads by POSIX, {counts.past_host} past the host"
        return Verdict(is_on=False, reason=reason)
    rates = {way: len(offsets) * _READ_BYTES / min(times) / 1e9 for way, times in seconds.items()}
    shown = f"{rates['past']:.2f} GB/s past the host, {rates['through']:.2f} GB/s through it"
    return Verdict(is_on=rates["past"] > _MARGIN * rates["through"], reason=shown)


def _spread(file_bytes: int) -> list[int]:
    """Whole reads, as far apart as the file is long."""
    whole = file_bytes // _READ_BYTES
    count = min(_READS, whole)
    return [whole * number // count * _READ_BYTES for number in range(count)]


def _is_same(reader: CuFileReader, host: DirectReader, lane: _Lane, offset: int) -> bool:
    lane.enter()
    reader.read_onto(lane.memory, offset, _READ_BYTES)
    lane.to_host()
    found = bytes(lane.host)
    host.read_into(offset, [lane.host])
    return found == bytes(lane.host)


def _race(lanes: Sequence[_Lane], offsets: Sequence[int], read: Callable[[_Lane, int], None]) -> float:
    """Seconds until all was read, by all lanes at once."""

    def work(number: int) -> None:
        lanes[number].enter()
        for offset in offsets[number :: len(lanes)]:
            read(lanes[number], offset)

    begin = time.perf_counter()
    with ThreadPoolExecutor(len(lanes)) as threads:
        list(threads.map(work, range(len(lanes))))
    return time.perf_counter() - begin
