"""Many loads in one process, every fourth of which fails: runs by itself, where /dev/shm is its own.

Prints what the process holds after each kind of load was done once, and after all of them.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
import threading
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import fastload
from fastload import FastloadError, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPO = "org/name"
_FAILS_EVERY = 4


class _StopError(Exception):
    """The caller's own."""


class Loads:
    """Ways to load what was warmed below ``folder``, and ways to fail."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, damage in {"flipped": _flip, "short": _shorten}.items():
            shutil.copytree(folder / "local", folder / name, symlinks=True)
            damage(max((folder / name).rglob("blobs/*"), key=lambda path: path.stat().st_size))

    def right(self) -> Iterator[Callable[[], object]]:
        """One after another, for ever."""
        readers = [lambda reader=reader: self._load(reader=reader) for reader in ("direct", "buffered", "mmap", "auto")]
        return cycle([*readers, self._stream, self._stream_a_part, self._load_into, self._write_through])

    def failing(self) -> Iterator[Callable[[], object]]:
        """The same."""
        wrong = [
            lambda tier=tier, reader=reader: self._load(tier, reader=reader)
            for tier in ("flipped", "short")
            for reader in ("direct", "buffered", "mmap")
        ]
        return cycle([*wrong, self._stop, lambda: self._load("nowhere"), lambda: self._load(dtype="F8_E4M3")])

    def _options(self, tier: str = "local") -> Options:
        return Options(local=str(self._folder / tier), shared="", tiers=("local",))

    def _load(self, tier: str = "local", **more: object) -> None:
        fastload.load(REPO, options=self._options(tier), **more)  # type: ignore[arg-type] # each kind's own

    def _stream(self) -> None:
        with fastload.stream(REPO, options=self._options()) as stream:
            dict(stream)

    def _stream_a_part(self) -> None:
        with fastload.stream(REPO, options=self._options()) as stream:
            next(stream)

    def _load_into(self) -> None:
        module = torch.nn.Module()
        for name, tensor in fastload.load(REPO, options=self._options()).items():
            module.register_buffer(name.replace(".", "_"), torch.empty_like(tensor))
        try:
            fastload.load_into(module, REPO, options=self._options(), strict=False)
        except fastload.UsageError:  # none of the names is the model's: all the same it has opened it
            return

    def _write_through(self) -> None:
        fresh = self._folder / "fresh"
        options = Options(local=str(fresh), shared=str(self._folder / "shared"), tiers=("local", "shared"))
        fastload.load(REPO, options=options)
        shutil.rmtree(fresh)

    def _stop(self) -> None:
        def stop(done_bytes: int, total_bytes: int) -> None:
            raise _StopError

        self._load(progress=stop)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def _shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _held() -> dict[str, object]:
    gc.collect()
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "tasks": len(os.listdir("/proc/self/task")),
        "descriptors": Counter(os.readlink(link) for link in links if os.path.islink(link)),
        "/dev/shm": sorted(os.listdir("/dev/shm")),
        "temporary": sorted(os.listdir(tempfile.gettempdir())),
    }


def main(folder: str, count: int) -> None:
    """``count`` loads from the tiers below ``folder``."""
    loads = Loads(Path(folder))
    right, failing = loads.right(), loads.failing()
    ends: Counter[str] = Counter()
    before: dict[str, object] = {}
    once = 9 * _FAILS_EVERY
    for number in range(once + count):
        if number == once:
            before, ends = _held(), Counter()
        load = next(failing if number % _FAILS_EVERY == 0 else right)
        try:
            load()
            ends["right"] += 1
        except (FastloadError, _StopError) as error:
            ends[type(error).__name__] += 1
    print(json.dumps({"before": before, "after": _held(), "ends": ends}))  # noqa: T201 - for the sweep


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
