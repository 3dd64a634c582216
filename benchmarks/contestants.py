"""The loaders that are compared. Each is got ready outside the clock (imports) and then loads a folder inside it.

All of them give the tensors to keep: what they return is not overwritten later and needs no copying.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from glob import glob
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Tensors = Mapping[str, torch.Tensor]
    Load = Callable[[str], Tensors]

PEERS = ("safetensors", "safetensors-pread", "runai")
FASTLOAD = ("fastload-auto", "fastload-direct", "fastload-buffered", "fastload-mmap")
CEILING = "memcpy"
CONTESTANTS = (*PEERS, *FASTLOAD, CEILING)
OFF = ("off", "off-mmap")
PROVEN = {
    "manifest": "manifest",
    "manifest-mmap": "manifest",
    "recorded": "manifest (recorded)",
    "sha256": "sha256",
    "etag": "etag",
}
"""By which evidence each of them must have proven its bytes."""
LOOP = "loop"
CEILINGS = (CEILING, LOOP)
_LOOP_THREADS = 2
_LOOP_BYTES = 4 << 20  # 4 MiB: a block
_MADV_POPULATE_READ = 22
_HUGE_PAGE_BYTES = 2 << 20  # 2 MiB
_COPY_BYTES = 16 << 20  # 16 MiB


def get_ready(contestant: str, folder: str) -> Load:
    """The load function of ``contestant``, imported and, for the ceiling, with its source in place."""
    family, _, variant = contestant.partition("-")
    families = {"safetensors": _safetensors, "runai": _runai, "fastload": _fastload, "memcpy": _memcpy, "loop": _loop}
    families |= {"off": _unproven} | dict.fromkeys((name.partition("-")[0] for name in PROVEN), _fastload)
    return families[family](variant, folder)


def list_shards(folder: str) -> list[str]:
    """The shards of a folder, as every loader's users list them."""
    return sorted(glob(os.path.join(folder, "*.safetensors")))


def _safetensors(variant: str, folder: str) -> Load:
    from safetensors.torch import load_file

    del folder
    backend = variant or "mmap"

    def load(folder: str) -> Tensors:
        tensors: dict[str, torch.Tensor] = {}
        for path in list_shards(folder):
            tensors |= load_file(path, device="cpu", backend=backend)
        return tensors

    return load


def _runai(variant: str, folder: str) -> Load:
    from runai_model_streamer import SafetensorsStreamer

    del variant, folder

    def load(folder: str) -> Tensors:
        with SafetensorsStreamer() as streamer:
            # 0.17 hands its tensors over (owned=True is the default); a copy of them would only cost time.
            streamer.stream_files(list_shards(folder), device="cpu")
            return dict(streamer.get_tensors())

    return load


def _fastload(variant: str, folder: str) -> Load:
    import fastload

    del folder
    return partial(fastload.load, device="cpu", reader=variant or "auto")


def _unproven(variant: str, folder: str) -> Load:
    import fastload

    del folder
    return partial(fastload.load, device="cpu", reader=variant or "auto", verify="off")


class Digested(dict[str, "torch.Tensor"]):
    """No tensors, because the bytes were read and digested, and not kept."""

    nbytes = 0


def _loop(variant: str, folder: str) -> Load:
    """Not a loader but a bound: two threads read blocks into the same few MiB and digest them there, and that is all.

    What it leaves out every load must do: headers, a plan, memory for the bytes, comparing.
    """
    from blake3 import blake3

    del variant, folder

    def load(folder: str) -> Tensors:
        descriptors = [os.open(path, os.O_RDONLY) for path in list_shards(folder)]
        sizes = {descriptor: os.fstat(descriptor).st_size for descriptor in descriptors}
        jobs = [(descriptor, at) for descriptor, size in sizes.items() for at in range(0, size, _LOOP_BYTES)]
        todo, digests = SimpleQueue[tuple[int, int]](), []
        for job in jobs:
            todo.put(job)

        def work(_: int) -> None:
            block = memoryview(bytearray(_LOOP_BYTES))
            with suppress(Empty):
                while True:
                    descriptor, at = todo.get_nowait()
                    count = os.preadv(descriptor, [block], at)
                    digests.append(blake3(block[:count]).hexdigest())

        with ThreadPoolExecutor(_LOOP_THREADS) as pool:
            list(pool.map(work, range(_LOOP_THREADS)))
        for descriptor in descriptors:
            os.close(descriptor)
        assert len(digests) == len(jobs)
        digested = Digested()
        digested.nbytes = sum(sizes.values())
        return digested

    return load


def _memcpy(variant: str, folder: str) -> Load:
    """Not a loader but a bound: the same bytes from mapped page cache into fresh memory of the kind that fastload uses.

    As many threads as fastload has. The source's pages are in this process's page tables before the clock starts; the
    target's pages are not, since no load's are.
    """
    del variant
    sources = [_map_source(path) for path in list_shards(folder)]

    def load(folder: str) -> Tensors:
        del folder
        targets = [_map_target(len(source)) for source in sources]
        jobs = [
            (_address(target) + at, _address(source) + at, min(_COPY_BYTES, len(source) - at))
            for target, source in zip(targets, sources, strict=True)
            for at in range(0, len(source), _COPY_BYTES)
        ]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(lambda job: ctypes.memmove(*job), jobs))
        return {str(number): torch.frombuffer(target, dtype=torch.uint8) for number, target in enumerate(targets)}

    return load


def _map_source(path: str) -> memoryview:
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    mapping.madvise(_MADV_POPULATE_READ)
    return memoryview(mapping)


def _map_target(nbytes: int) -> memoryview:
    mapping = mmap.mmap(-1, nbytes + _HUGE_PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(mmap.MADV_HUGEPAGE)
    begin = -_address(memoryview(mapping)) % _HUGE_PAGE_BYTES
    return memoryview(mapping)[begin : begin + nbytes]


def _address(buffer: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
