"""GPUDirect Storage: bytes go from the disk into device memory past the host. The only importer of kvikio.

kvikio is a thin, maintained way to cuFile. Of it we use the raw calls: one ``cuFileRead`` of a whole extent in the
thread that wants it, straight into registered memory, with no thread pool and no settings of kvikio's in between. They
release the GIL (measured with kvikio 26.10). ``compat_mode`` is off while we open, and set back: with it on, or left to
kvikio, what cannot be had would silently become a read through the host.

That cuFile reads does not mean that bytes go past the host: it has a compatibility mode of its own. What happened only
its statistics tell (:mod:`fastload._read.gds_statistics`).
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fastload._read.file import open_regular, translate
from fastload._read.watch import check_descriptor
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds_health import GdsHealth
    from fastload._read.reader import File

_Answer = TypeVar("_Answer")

PAGE_BYTES = 4096
"""What offset, length and address are multiples of, lest cuFile reads through a buffer of its own and copies."""
_FAILURES = (RuntimeError, OSError, ValueError, TypeError)
"""What kvikio raises; mostly RuntimeError, whatever happened."""
_HINT = 'The extent is read through host memory instead. For good: FASTLOAD_GDS=off, or reader="auto"'


def import_kvikio() -> Any:
    """The module.

    Raises:
        UnsupportedError: it is not installed, or what it needs is not.
    """
    try:
        import kvikio  # noqa: PLC0415 - a quarter of a second, and few have it
        import kvikio.defaults  # noqa: PLC0415
    except ModuleNotFoundError as exc:
        raise UnsupportedError(f"no GPUDirect Storage without kvikio: {exc}", "See docs/install.md for it") from exc
    except (ImportError, *_FAILURES) as exc:  # a missing libcufile is a RuntimeError of cuda.pathfinder
        raise UnsupportedError(f"kvikio cannot be imported: {exc}", "See docs/install.md for what it needs") from exc
    return kvikio


class CuFiles:
    """cuFile, as kvikio brings it: files are opened and memory is registered with it."""

    def __init__(self, kvikio: Any, *, health: GdsHealth, compat_mode: str = "OFF") -> None:
        """``compat_mode``: kvikio's; another one than OFF only where a test has no device."""
        self._kvikio = kvikio
        self.health = health
        self._compat_mode = getattr(kvikio.CompatMode, compat_mode)
        self._setting = threading.Lock()

    def open(self, file: File) -> CuFileReader:
        """Open ``file`` and register it with cuFile.

        Raises:
            UnsupportedError: cuFile does not take it.
            FormatError, StoreError: it cannot be opened by anybody.
        """
        descriptor = open_regular(file.path)  # kvikio says RuntimeError even of a file that is missing
        try:
            handle = self._open(file.path)
        except BaseException:
            os.close(descriptor)
            raise
        return CuFileReader(file, descriptor, handle)

    def _open(self, path: str) -> Any:
        return self._call(f"open {path!r}", lambda: self._kvikio.CuFile(path, "r"))

    def register(self, memory: DeviceMemory) -> None:
        """Let storage write straight to ``memory``, an allocation of its own, until :meth:`release`.

        Raises:
            UnsupportedError: cuFile does not take it, mostly for want of BAR1 space.
        """
        self._call(f"register {memory.nbytes:,} bytes of device memory", lambda: self._kvikio.memory_register(memory))

    def release(self, memory: DeviceMemory) -> bool:
        """The reverse, when no read into it is under way.

        Returns:
            False where cuFile does not let go of it: then it must not be freed, and the error is noted.
        """
        try:
            self._call("deregister device memory", lambda: self._kvikio.memory_deregister(memory))
        except UnsupportedError as exc:
            self.health.note(exc)
            return False
        return True

    def _call(self, done: str, call: Callable[[], _Answer]) -> _Answer:
        """One at a time, for the setting is the process's: two at once could leave it changed behind them."""
        with self._setting, _translated(done), self._kvikio.defaults.set({"compat_mode": self._compat_mode}):
            return call()


class CuFileReader:
    """Reads one file into device memory. Several threads may read at once."""

    def __init__(self, file: File, descriptor: int, handle: Any) -> None:
        self._file = file
        self._descriptor = descriptor
        self._handle = handle

    @property
    def file_bytes(self) -> int:
        """As planned for."""
        return self._file.identity.size

    def read_onto(self, memory: DeviceMemory, offset: int, length: int) -> None:
        """Bring ``length`` bytes from ``offset`` on to the beginning of ``memory``, both multiples of 4096.

        They are there when this returns, for whatever the device is told from then on.

        Raises:
            UnsupportedError: cuFile failed; what is in ``memory`` is undefined.
            IntegrityError: the file changed since its header was read.
        """
        done = 0
        while done < length:
            count = self._read(memory, offset + done, length - done, done)
            if count <= 0 or count % PAGE_BYTES:
                what = f"cuFile brought {done + count:,} of {length:,} bytes at {offset:,} of {self._file.path!r}"
                raise UnsupportedError(what, _HINT)
            done += count
        self._check_unchanged(offset)

    def _read(self, memory: DeviceMemory, offset: int, length: int, at: int) -> int:
        with _translated(f"read {length:,} bytes at {offset:,} of {self._file.path!r}"):
            # The address of the registration and an offset into it: cuFile looks registrations up by their beginning.
            return int(self._handle.raw_read(memory, length, offset, at))

    def _check_unchanged(self, offset: int) -> None:
        try:
            check_descriptor(self._file, self._descriptor, offset)
        except OSError as exc:
            raise translate(self._file.path, exc) from exc

    def check_path(self) -> None:
        """Whoever reads the rest of the file does that."""

    def close(self) -> None:
        """Deregister the file, then close it. No read may be under way."""
        self._handle.close()
        os.close(self._descriptor)


@contextmanager
def _translated(done: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as exc:
        raise UnsupportedError(f"cuFile cannot {done}: {exc}", _HINT) from exc
