"""The models that ``device.py`` measures with: one in memory and one on a disk, each with a manifest of its blocks."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_process import check
from device_run import SkipError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

    from fastload.ops.bench.files import Files

    Call = Callable[[list[str], float], subprocess.CompletedProcess[str]]

GIB = 1 << 30
_MAKE = """
import sys
from fastload.ops.bench.checkpoint import list_llama, write_checkpoint
import fastload

folder, size, shards = sys.argv[1], *map(int, sys.argv[2:])
write_checkpoint(folder, list_llama(size), shards=shards, processes=shards)
fastload.verify(folder, record=True)
"""


class Models:
    """By place: ``tmpfs`` and ``disk``."""

    def __init__(self, folders: Mapping[str, Path], sizes: Mapping[str, int], call: Call) -> None:
        """``sizes``: what is asked for; ``call`` runs a command under a limit of time."""
        self._folders = folders
        self._sizes = sizes
        self._call = call
        self._models: dict[str, Files] = {}

    def get(self, place: str) -> Files:
        """The one in ``place``.

        Raises:
            SkipError: it was not made.
        """
        if place not in self._models:
            raise SkipError(f"there is no model ({place})")
        return self._models[place]

    def make(self, place: str, gpu_bytes: int | None, limit_s: float) -> dict[str, Any]:
        """With a manifest of its blocks, to prove it by; where that fails, nothing is left."""
        from fastload.ops.bench.checkpoint import list_llama
        from fastload.ops.bench.files import list_files

        folder = self._folders[place]
        size_bytes = self._choose_size(place, gpu_bytes)
        # As many as can be made at once, which is what takes the time.
        shards = max(1, min(size_bytes // GIB, len(os.sched_getaffinity(0))))
        try:
            command = [sys.executable, "-c", _MAKE, str(folder), str(size_bytes), str(shards)]
            check(self._call(command, limit_s))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(exist_ok=True)
            raise
        self._models[place] = files = list_files(str(folder))
        return {"found": {"bytes": files.nbytes, "shards": len(files.paths), "tensors": len(list_llama(size_bytes))}}

    def use(self, place: str, folder: str) -> dict[str, Any]:
        """A model that is there."""
        from fastload.ops.bench.files import list_files

        files = list_files(folder)
        if not files.paths:
            raise SkipError(f"there are no shards in {folder}")
        self._models[place] = files
        return {"found": {"bytes": files.nbytes, "shards": len(files.paths)}}

    def _choose_size(self, place: str, gpu_bytes: int | None) -> int:
        """What was asked for, or what memory, disk and GPU allow."""
        room_bytes = shutil.disk_usage(self._folders[place]).free
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        memory_bytes = int(fields["MemAvailable"].split()[0]) * 1024
        asked_bytes = self._sizes[place]
        limits = [asked_bytes, room_bytes * 0.8, memory_bytes * 0.45, *([gpu_bytes * 0.7] if gpu_bytes else [])]
        allowed_bytes = int(min(limits))
        if allowed_bytes < min(asked_bytes, GIB):
            raise SkipError(f"there is room for {allowed_bytes:,} bytes only")
        return allowed_bytes
