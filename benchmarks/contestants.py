"""The loaders that are compared. Each is got ready outside the clock (imports) and then loads a folder inside it.

All of them give the tensors to keep: what they return is not overwritten later and needs no copying.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from glob import glob
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
_MADV_POPULATE_READ = 22
_HUGE_PAGE_BYTES = 2 << 20  # 2 MiB
_COPY_BYTES = 16 << 20  # 16 MiB


def get_ready(contestant: str, folder: str) -> Load:
    """The load function of ``contestant``, imported and, for the ceiling, with its source in place."""
    family, _, variant = contestant.partition("-")
    return {"safetensors": _safetensors, "runai": _runai, "fastload": _fastload, "memcpy": _memcpy}[family](
        variant, folder
    )


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
    return partial(fastload.load, device="cpu", reader=variant)


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
