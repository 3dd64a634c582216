"""One measurement in a process of its own: ``python measure.py CONTESTANT FOLDER WARM_UP_FOLDER``.

A fresh process, because imports, thread pools, freed memory and peak RSS of one must not help or burden the next. It
prints ``ready`` when all is imported, waits for a line on stdin, loads, and prints one JSON object.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from contestants import CEILINGS, get_ready

if TYPE_CHECKING:
    from contestants import Tensors

_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Sample:
    """What one load took."""

    contestant: str
    seconds: float
    """From the call to the last page touched."""
    load_s: float
    """Until the call returned; for a lazy loader this says little."""
    touch_s: float
    """A second touching, of pages that are there: what the touching itself costs."""
    cpu_s: float
    """Of all threads, user and system."""
    nbytes: int
    peak_rss_bytes: int
    start_rss_bytes: int
    """Peak before the load: Python, torch, the loader's own libraries."""
    touched_sum: int
    """Of the touched bytes: the same for all that load the same."""
    note: str
    evidence: str
    """By which the bytes were proven, as fastload reports it."""


def touch(tensors: Tensors) -> int:
    """Read a byte of every page of every tensor; return the sum of these bytes.

    A tensor's first and last byte, and every 4,096th between: no page has room to hide. A strided sum by torch takes
    5 ms a GiB; for small tensors its overhead would exceed the load, so their two bytes are read by address.
    """
    total = 0
    for tensor in tensors.values():
        nbytes = tensor.nbytes
        if nbytes > _PAGE_BYTES:
            total += int(tensor.reshape(-1).view(torch.uint8)[::_PAGE_BYTES].sum())
        elif nbytes:
            total += _byte_at(tensor.data_ptr())
        if nbytes:
            total += _byte_at(tensor.data_ptr() + nbytes - 1)
    return total


def _byte_at(address: int) -> int:
    return ctypes.c_ubyte.from_address(address).value


def measure(contestant: str, folder: str, warm_up_folder: str) -> Sample:
    """Load ``folder`` once."""
    load = get_ready(contestant, folder)
    if contestant not in CEILINGS:
        touch(load(warm_up_folder))  # a few bytes: what is imported at the first call is imported now
    print("ready", flush=True)
    sys.stdin.readline()
    start_rss_bytes = _read_peak_rss()
    cpu_begin, begin = time.process_time(), time.perf_counter()
    tensors = load(folder)
    returned = time.perf_counter()
    touched_sum = touch(tensors)
    end, cpu_end = time.perf_counter(), time.process_time()
    peak_rss_bytes = _read_peak_rss()
    touch(tensors)
    touch_s = time.perf_counter() - end
    report = getattr(tensors, "report", None)
    return Sample(
        contestant,
        seconds=end - begin,
        load_s=returned - begin,
        touch_s=touch_s,
        cpu_s=cpu_end - cpu_begin,
        nbytes=getattr(tensors, "nbytes", None) or sum(tensor.nbytes for tensor in tensors.values()),
        peak_rss_bytes=peak_rss_bytes,
        start_rss_bytes=start_rss_bytes,
        touched_sum=touched_sum,
        note=f"{report.reader}: {report.reader_reason}" if report else "",
        evidence=report.evidence if report else "",
    )


def _read_peak_rss() -> int:
    """VmHWM. Not ``ru_maxrss``: that one survives exec and begins at what the parent had."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(asdict(measure(*sys.argv[1:4]))))
