"""What ``device.py`` measures beside loads, each in a process of its own: ``python device_steps.py STEP JSON``."""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import torch

import fastload

if TYPE_CHECKING:
    from collections.abc import Callable

_SLOT_BYTES = 16 << 20  # 16 MiB: what a load copies at a time
_SLOTS = 16
_COPIES = 512  # 8 GiB
_ROUNDS = 5
_PACKAGES = ("torch", "triton", "blake3", "kvikio-cu13", "safetensors", "runai-model-streamer", "fastsafetensors")


def describe(device: str) -> dict[str, Any]:
    """The device, and the versions that the numbers depend on."""
    found: dict[str, Any] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in (*_PACKAGES, "instanttensor"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["has_gpu"] = device != "cpu" and torch.cuda.is_available()
    if found["has_gpu"]:
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_bytes": properties.total_memory}
    return found


def measure_ceiling(device: str) -> dict[str, Any]:
    """GB/s from pinned slots to the device, as a load copies: many slots, several streams; nothing else is done."""
    from fastload._place.cuda_memory import PinnedSlot, allocate_on

    where = torch.device(device)
    targets = [allocate_on(where, _SLOT_BYTES) for _ in range(_SLOTS)]
    slots = [PinnedSlot(_SLOT_BYTES, 0) for _ in range(_SLOTS)]
    sources = [torch.frombuffer(slot.memory, dtype=torch.uint8) for slot in slots]
    found = {"pinned": all(slot.is_pinned for slot in slots)}
    rates: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        for count in (1, 2, 8):
            streams = [torch.cuda.Stream(where) for _ in range(count)]
            torch.cuda.synchronize(where)
            begin = time.perf_counter()
            for number in range(_COPIES):
                with torch.cuda.stream(streams[number % count]):
                    targets[number % _SLOTS].copy_(sources[number % _SLOTS], non_blocking=True)
            torch.cuda.synchronize(where)
            rates.setdefault(f"{count} streams", []).append(_COPIES * _SLOT_BYTES / (time.perf_counter() - begin) / 1e9)
    for slot in slots:
        slot.unpin()
    return found | {"gb_per_s": {name: _spread(each) for name, each in rates.items()}}


def measure_digests(device: str) -> dict[str, Any]:
    """GB/s of block digests on the device, as Triton compiles them here; they are compared with the CPU's first."""
    return _measure_digests(device, 128)


def measure_brought_digests(device: str) -> dict[str, Any]:
    """The same by the kernels that are brought along, which is what loads digest with."""
    from fastload._place.gpu_digest_code import KERNELS, load_function

    for kernel in KERNELS:  # where the device does not take them Triton's would be measured
        load_function(kernel, torch.device(device).index or 0)
    return _measure_digests(device, None)


def _measure_digests(device: str, slab_chunks: int | None) -> dict[str, Any]:
    from device_digest import check, measure_row

    buffer = torch.randint(256, (1 << 30,), dtype=torch.uint8, device=device)
    begin = time.perf_counter()
    check(buffer, slab_chunks)
    compiled_s = time.perf_counter() - begin
    rows = [measure_row(buffer, slab_chunks) for _ in range(3)]
    names = ("16 MiB slot", "16 MiB slot, called by Python", "1 GiB")
    rates = {name: _spread([row[at] for row in rows]) for at, name in enumerate(names)}
    return {"first_call_s": compiled_s, "gb_per_s": rates}


def measure_memory(way: str, folder: str, device: str) -> dict[str, Any]:
    """The most memory that one load has in use: on the device by torch's count, pinned by the kernel's."""
    where = torch.device(device)
    run = {"load": _load, "stream": _stream, "load_into": _load_into}[way](folder, where)
    if where.type == "cuda":
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats(where)
    pinned = PinnedWatch()
    with pinned:
        begin = time.perf_counter()
        report = run()
        seconds = time.perf_counter() - begin
    return {
        "model_bytes": report.bytes,
        "seconds": seconds,
        "device_peak_bytes": torch.cuda.max_memory_allocated(where) if where.type == "cuda" else None,
        "staging_bytes": report.peak_staging_bytes,
        "pinned_peak_bytes": pinned.peak_bytes,
        "evidence": report.evidence,
        "hashed_on": report.hashed_on,
        "bottleneck": report.bottleneck,
    }


def _load(folder: str, device: torch.device) -> Callable[[], fastload.Report]:
    return lambda: fastload.load(folder, device=device).report


def _stream(folder: str, device: torch.device) -> Callable[[], fastload.Report]:
    def run() -> fastload.Report:
        with fastload.stream(folder, device=device) as stream:
            for _ in stream:
                pass
        return stream.report

    return run


def _load_into(folder: str, device: torch.device) -> Callable[[], fastload.Report]:
    """A module whose parameters are the checkpoint's tensors, allocated before."""
    module = torch.nn.Module()
    for name, info in fastload.inspect(folder).tensors.items():
        owner = module
        *path, last = name.split(".")
        for part in path:
            if part not in dict(owner.named_children()):
                owner.add_module(part, torch.nn.Module())
            owner = owner.get_submodule(part)
        parameter = torch.empty(info.shape, dtype=torch.bfloat16, device=device)
        owner.register_parameter(last, torch.nn.Parameter(parameter, requires_grad=False))
    return lambda: fastload.load_into(module, folder)


class PinnedWatch:
    """Looks now and then how much memory of this process drivers hold (``VmPin``); 0: this driver tells nobody."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._is_over = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._is_over.wait(0.005):
            with open("/proc/self/status", encoding="ascii") as status:
                fields = dict(line.split(":", 1) for line in status)
            self.peak_bytes = max(self.peak_bytes, int(fields["VmPin"].split()[0]) * 1024)


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "facts": describe,
    "ceiling": measure_ceiling,
    "digests": measure_digests,
    "brought-digests": measure_brought_digests,
    "memory": measure_memory,
}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](**json.loads(sys.argv[2]))))
