"""As much of kvikio as we call, over host memory, which fails when it is told to."""

from __future__ import annotations

import contextlib
import ctypes
import enum
import importlib.machinery
import os
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class CompatMode(enum.Enum):
    """As kvikio's."""

    OFF = 0
    ON = 1
    AUTO = 2


class FakeKvikio:
    """The module; ``failures`` are raised by the next calls of that name, ``short`` is what reads bring at most."""

    CompatMode = CompatMode
    __spec__ = importlib.machinery.ModuleSpec("kvikio", None)

    @property
    def file_type(self) -> type[FakeFile]:
        return FakeFile

    def __init__(self, failures: dict[str, list[Exception]] | None = None) -> None:
        self.failures = {name: deque(errors) for name, errors in (failures or {}).items()}
        self.defaults = self
        self.settings: dict[str, object] = {"compat_mode": CompatMode.AUTO}
        self.registered: Counter[int] = Counter()
        self.open_files = 0
        self.reads: list[tuple[int, int]] = []
        self.short: int | None = None
        self.opened_in: list[object] = []

    def fail(self, name: str) -> None:
        if self.failures.get(name):
            raise self.failures[name].popleft()

    def opening(self) -> None:
        """A file is about to be opened."""

    def written(self, address: int, nbytes: int) -> None:
        """Storage is about to write there."""

    @contextlib.contextmanager
    def set(self, settings: dict[str, object]) -> Iterator[None]:
        before = dict(self.settings)
        self.settings |= settings
        try:
            yield
        finally:
            self.settings = before

    def CuFile(self, path: str | Path, flags: str) -> FakeFile:  # noqa: N802 - as kvikio calls it
        assert flags == "r"
        self.opening()
        self.fail("open")
        self.opened_in.append(self.settings["compat_mode"])
        return self.file_type(self, str(path))

    def memory_register(self, memory: Any) -> None:
        assert self.settings["compat_mode"] is CompatMode.OFF, "kvikio registers nothing while it prefers POSIX"
        self.fail("register")
        self.registered[memory.address] += 1

    def memory_deregister(self, memory: Any) -> None:
        assert self.settings["compat_mode"] is CompatMode.OFF
        self.fail("deregister")
        self.registered -= Counter({memory.address: 1})


class FakeFile:
    """As ``kvikio.CuFile``."""

    def __init__(self, kvikio: FakeKvikio, path: str) -> None:
        self._kvikio = kvikio
        self._descriptor = os.open(path, os.O_RDONLY)
        kvikio.open_files += 1

    def raw_read(self, memory: Any, size: int, file_offset: int, dev_offset: int) -> int:
        self._kvikio.fail("read")
        self._kvikio.reads.append((file_offset, size))
        address, is_read_only = memory.__cuda_array_interface__["data"]
        assert not is_read_only
        assert dev_offset + size <= memory.nbytes
        wanted = size if self._kvikio.short is None else min(size, self._kvikio.short)
        content = os.pread(self._descriptor, wanted, file_offset)
        self._kvikio.written(address, memory.nbytes)
        self.put(address + dev_offset, content)
        return len(content)

    def put(self, address: int, content: bytes) -> None:
        """The device's memory is the host's."""
        ctypes.memmove(address, content, len(content))

    def close(self) -> None:
        os.close(self._descriptor)
        self._kvikio.open_files -= 1
