"""What no loader can be faster than: storage alone, a loop that does nothing but digest, a copy in memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import local
from typing import TYPE_CHECKING

from blake3 import blake3

from fastload._address_space import address_of, map_anonymous
from fastload._cpus import count_cpus
from fastload._fetch.pace import Pace
from fastload._place.memory import map_staging
from fastload._read.file import identify
from fastload._read.populate import map_file
from fastload._read.pread import BufferedReader, DirectReader
from fastload._read.reader import PlainFile
from fastload._verify.digest import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from fastload._read.reader import Reader
    from fastload.ops.bench.contestants import Load, Tensors
    from fastload.ops.bench.files import Files

_READ_BYTES = 8 << 20  # 8 MiB: what a load to host memory reads at a time
_READ_THREADS = 8
_LOOP_THREADS = 2
_COPY_BYTES = 16 << 20  # 16 MiB
_MADV_POPULATE_READ = 22


class Passed(dict[str, "torch.Tensor"]):
    """No tensors, because the bytes were looked at and not kept."""

    nbytes = 0


def get_reading_ready(variant: str, max_rate: int | None) -> Load:
    """Threads read extents into the same few MiB, and that is all: ``direct`` or ``buffered``, by eight or by one."""
    kind, _, threads = variant.partition("-")
    pass_over = _Pass(
        DirectReader if kind == "direct" else BufferedReader,
        int(threads or _READ_THREADS),
        _READ_BYTES,
        Pace(max_rate),
        lambda _: None,
    )
    return pass_over.run


def get_loop_ready() -> Load:
    """Two threads read blocks into the same few MiB and digest them there.

    What it leaves out every load must do: headers, a plan, memory for the bytes, comparing.
    """

    def digest(block: memoryview) -> None:
        blake3(block).hexdigest()

    return _Pass(BufferedReader, _LOOP_THREADS, BLOCK_BYTES, Pace(None), digest).run


class _Pass:
    """Passes over files by several threads, each with a buffer of its own, and keeps nothing."""

    def __init__(
        self,
        open_reader: Callable[[PlainFile], Reader],
        threads: int,
        step_bytes: int,
        pace: Pace,
        use: Callable[[memoryview], None],
    ) -> None:
        self._open_reader = open_reader
        self._threads = threads
        self._step_bytes = step_bytes
        self._pace = pace
        self._use = use
        self._own = local()

    def run(self, files: Files) -> Tensors:
        passed = Passed()
        passed.nbytes = files.nbytes
        with ExitStack() as opened, ThreadPoolExecutor(self._threads) as pool:
            jobs = list(self._jobs(files, opened))
            list(pool.map(self._read, jobs))
        return passed

    def _jobs(self, files: Files, opened: ExitStack) -> Iterator[tuple[Reader, int, int]]:
        for path in files.paths:
            identity = identify(os.stat(path))
            reader = self._open_reader(PlainFile(path, identity))
            opened.callback(reader.close)
            for at in range(0, identity.size, self._step_bytes):
                yield reader, at, min(self._step_bytes, identity.size - at)

    def _read(self, job: tuple[Reader, int, int]) -> None:
        reader, at, length = job
        if not hasattr(self._own, "buffer"):
            self._own.buffer = map_staging(self._step_bytes)
        time.sleep(self._pace.delay_s(length))
        whole: memoryview = self._own.buffer
        reader.read_into(at, [whole if reader.alignment_bytes > 1 else whole[:length]])
        self._use(whole[:length])


def get_memcpy_ready(files: Files) -> Load:
    """The same bytes from mapped page cache into fresh memory of the kind that fastload uses.

    As many threads as fastload has. The source's pages are in this process's page tables before the clock starts; the
    target's pages are not, since no load's are.
    """
    import torch

    sources = [_map_source(path) for path in files.paths]

    def load(_: Files) -> Tensors:
        targets = [map_anonymous(len(source)) for source in sources]
        jobs = [
            (address_of(target) + at, address_of(source) + at, min(_COPY_BYTES, len(source) - at))
            for target, source in zip(targets, sources, strict=True)
            for at in range(0, len(source), _COPY_BYTES)
        ]
        with ThreadPoolExecutor(count_cpus().usable) as pool:
            list(pool.map(lambda job: ctypes.memmove(*job), jobs))
        return {str(number): torch.frombuffer(target, dtype=torch.uint8) for number, target in enumerate(targets)}

    return load


def _map_source(path: str) -> memoryview:
    memory = map_file(PlainFile(path, identify(os.stat(path))))
    mapping = memory.obj
    if isinstance(mapping, mmap.mmap):
        mapping.madvise(_MADV_POPULATE_READ)
    return memory
