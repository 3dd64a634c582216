"""One measurement in a process of its own: ``python -m fastload.ops.bench.measure JOB``, where JOB is JSON.

A fresh process, because imports, thread pools, freed memory and peak RSS of one must not help or burden the next. It
prints ``ready`` when all is imported, waits for a line on stdin, loads, and prints one JSON object.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fastload.ops.bench.contestants import BOUNDS, get_ready
from fastload.ops.bench.files import Files, Trial

if TYPE_CHECKING:
    import torch

    from fastload.ops.bench.contestants import Load, Tensors

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
    peak_device_bytes: int = 0
    """As torch counts them."""
    staging_bytes: int | None = None
    """Host memory on the way, as fastload reports it."""
    bottleneck: str = ""
    """What held it up, as fastload reports it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to measure."""

    contestant: str
    trial: Trial
    warm_up: Files | None
    """A few bytes that are loaded before: what is imported at the first call is imported then. None: the first load of
    the process is what shall be measured."""
    repeats: int = 1
    """Loads in the same process; the page cache is brought into its state before each."""

    @classmethod
    def from_json(cls, text: str) -> Job:
        """The job that :meth:`to_json` wrote."""
        job = json.loads(text)
        trial = Trial(**job["trial"] | {"files": _parse_files(job["trial"]["files"])})
        warm_up = None if job["warm_up"] is None else _parse_files(job["warm_up"])
        return cls(job["contestant"], trial, warm_up, job["repeats"])

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


def _parse_files(facts: dict[str, Any]) -> Files:
    return Files(facts["folder"], tuple(facts["paths"]), facts["is_part"])


def touch(tensors: Tensors) -> int:
    """Read a byte of every page of every tensor in host memory; return the sum of these bytes.

    A tensor's first and last byte, and every 4,096th between: no page has room to hide. A strided sum by torch takes
    5 ms a GiB; for small tensors its overhead would exceed the load, so their two bytes are read by address.
    """
    total = 0
    for tensor in tensors.values():
        nbytes = tensor.nbytes
        if nbytes > _PAGE_BYTES:
            total += _sum_pages(tensor)
        elif nbytes:
            total += _byte_at(tensor.data_ptr())
        if nbytes:
            total += _byte_at(tensor.data_ptr() + nbytes - 1)
    return total


def _sum_pages(tensor: torch.Tensor) -> int:
    import torch

    return int(tensor.reshape(-1).view(torch.uint8)[::_PAGE_BYTES].sum())


def sum_on_device(tensors: Tensors, device: str) -> int:
    """The sum that :func:`touch` gives, of tensors on ``device``, where nothing is lazy."""
    import torch

    total = torch.zeros((), dtype=torch.int64, device=device)
    for tensor in tensors.values():
        if tensor.nbytes:
            flat = tensor.reshape(-1).view(torch.uint8)
            total += flat[::_PAGE_BYTES].sum() if tensor.nbytes > _PAGE_BYTES else flat[0]
            total += flat[-1]
    return int(total)


def _byte_at(address: int) -> int:
    return ctypes.c_ubyte.from_address(address).value


class _Place:
    """Where tensors go, and when they are there."""

    def __init__(self, device: str) -> None:
        self._device = device
        if device != "cpu":
            import torch

            torch.zeros(1, device=device)  # a context is made once per process, whoever loads

    def wait(self, tensors: Tensors) -> int | None:
        """Return when all is there; the sum of bytes, where waiting means touching them."""
        if self._device == "cpu":
            return touch(tensors)
        import torch

        torch.cuda.synchronize(self._device)
        return None

    def forget_peak(self) -> None:
        """What was used so far does not count."""
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)

    def peak_bytes(self) -> int:
        """The most device memory that torch had in use."""
        if self._device == "cpu":
            return 0
        import torch

        return torch.cuda.max_memory_allocated(self._device)


def measure(job: Job) -> list[Sample]:
    """Load as often as the job says; between two loads nothing of the first is left."""
    load = get_ready(job.contestant, job.trial)
    if job.contestant not in BOUNDS:
        import torch  # noqa: F401 - before the clock
    place = _Place("cpu" if job.contestant in BOUNDS else job.trial.device)
    if job.warm_up is not None and job.contestant not in BOUNDS:
        place.wait(load(job.warm_up))
    samples: list[Sample] = []
    for _ in range(job.repeats):
        place.forget_peak()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        samples.append(_measure_once(job, load, place))
    return samples


def _measure_once(job: Job, load: Load, place: _Place) -> Sample:
    start_rss_bytes = _read_peak_rss()
    cpu_begin, begin = time.process_time(), time.perf_counter()
    tensors = load(job.trial.files)
    returned = time.perf_counter()
    touched_sum = place.wait(tensors)
    end, cpu_end = time.perf_counter(), time.process_time()
    peak_rss_bytes, peak_device_bytes = _read_peak_rss(), place.peak_bytes()
    touched_sum = sum_on_device(tensors, job.trial.device) if touched_sum is None else touched_sum
    begin_again = time.perf_counter()
    place.wait(tensors)
    touch_s = time.perf_counter() - begin_again
    report = getattr(tensors, "report", None)
    return Sample(
        job.contestant,
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
        peak_device_bytes=peak_device_bytes,
        staging_bytes=report.peak_staging_bytes if report else None,
        bottleneck=report.bottleneck if report else "",
    )


def _read_peak_rss() -> int:
    """VmHWM. Not ``ru_maxrss``: that one survives exec and begins at what the parent had."""
    with open("/proc/self/status", encoding="utf-8") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    answer = json.dumps([asdict(sample) for sample in measure(Job.from_json(sys.argv[1]))])
    # A whole line: its end is seen also where something that was started holds the pipe.
    sys.stdout.write(f"{answer}\n")
