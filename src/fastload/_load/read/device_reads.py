"""Extents that go from storage to the device past the host, where that is possible; all others go as ever.

Decided anew for each extent: whether GPUDirect Storage is on by now, whether the device takes the digests by now,
whether the extent is whole pages. Whatever cuFile fails at is read once more through host memory, at once, by the same
worker; after three failures nobody asks it again.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from fastload._read.gds import PAGE_BYTES
from fastload._read.pool import ReaderPool
from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fastload._format.checkpoint import Shard
    from fastload._plan.extent import Extent
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFileReader, CuFiles
    from fastload._read.gds_switch import GdsSwitch

    MemoryFor = Callable[[CuFiles], DeviceMemory]


class DeviceReads:
    """The way past the host, of one load."""

    def __init__(
        self,
        shards: Sequence[Shard],
        served: Collection[int],
        extents: Sequence[Extent],
        switch: GdsSwitch,
        *,
        is_required: bool,
    ) -> None:
        """``served``: the shards that may go this way; ``is_required``: an error of cuFile is the load's."""
        self._served = frozenset(served)
        self._refused = ""
        self._begin: Callable[[], None] = lambda: None
        self._count: Callable[[int], None] = lambda _: None
        self._switch = switch
        self._is_required = is_required
        counts = Counter(extent.shard for extent in extents)
        self._pool = ReaderPool(lambda shard: _LazyReader(shards[shard]), counts)
        self._lock = threading.Lock()
        self._brought: Counter[int] = Counter()
        self._total = len(extents)

    def when_begun(self, begin: Callable[[], None]) -> None:
        """Call ``begin`` when the reading begins."""
        self._begin = begin

    def when_brought(self, count: Callable[[int], None]) -> None:
        """Call ``count`` with so many bytes that storage has written to the device."""
        self._count = count

    def refuse(self, why: str) -> None:
        """Nothing goes this way after all; before anything was read."""
        self._served, self._refused, self._begin = frozenset(), why, lambda: None

    def begin(self) -> None:
        """The reading begins."""
        self._begin()

    @property
    def is_on(self) -> bool:
        """False where there is no need to ask for single extents now."""
        return bool(self._served) and (self._is_required or self._switch.files is not None)

    def bring(self, extent: Extent, memory_for: MemoryFor, *, is_checked: bool) -> bool:
        """Bring ``extent`` to device memory; False where it must be read through the host.

        Args:
            extent: what is wanted.
            memory_for: gives the calling worker's memory for it, registered with what it is called with.
            is_checked: True if nobody need look at the bytes on the host.

        Raises:
            IntegrityError, StoreError: as any reader.
            UnsupportedError: cuFile failed, and no other way was allowed.
        """
        if extent.shard not in self._served:
            return False
        with self._pool.reader_for(extent.shard) as reader:
            files = self._switch.files if is_checked else None
            if files is None and self._is_required:
                why = self._switch.reason if is_checked else "the device does not take the digests"
                raise UnsupportedError(f'reader="gds" cannot go on: {why}', 'Use reader="auto"')
            if files is None or extent.length % PAGE_BYTES or extent.offset % PAGE_BYTES:
                return False
            try:
                reader.read_onto(files, memory_for(files), extent)
            except UnsupportedError as exc:
                if self._is_required:
                    raise
                files.health.note(exc)
                return False
        with self._lock:
            self._brought[extent.shard] += 1
        self._count(extent.length)
        return True

    def describe(self) -> tuple[str, str]:
        """The name under which it served, empty where it did not, and the reason: for the report.

        It is GPUDirect Storage where cuFile's statistics say so, else only cuFile.
        """
        brought = self._brought.total()
        if not brought:
            return "", self._refused or self._switch.reason
        shown = f"{brought} of {self._total} extents by cuFile"
        counts = self._switch.read_counts()
        if counts is None:
            return "cufile", f"{shown}, whose statistics do not say whether past the host"
        if not counts.is_gds:
            return "cufile", f"{shown}, which read through the host: {counts.posix} reads by POSIX"
        later = f"; off since: {self._switch.reason}" if self._switch.files is None else ""
        return "gds", f"{shown}, all of its {counts.past_host} reads past the host{later}"

    def close(self) -> None:
        """Close what is open; a file still in use is closed by its last user."""
        self._pool.close()


class _LazyReader:
    """Of one file, registered with cuFile when it is first asked for."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._opening = threading.Lock()
        self._reader: CuFileReader | None = None

    def read_onto(self, files: CuFiles, memory: DeviceMemory, extent: Extent) -> None:
        with self._opening:
            if self._reader is None:
                self._reader = files.open(self._shard)
        self._reader.read_onto(memory, extent.offset, extent.length)

    def check_path(self) -> None:
        """The shard's ordinary reader does that."""

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
