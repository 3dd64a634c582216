"""How the bytes of one extent come into a lane: through the memory of the host, or from storage to the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from fastload._read.proof import BlockProof

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload._clock import Busy
    from fastload._load.read.device_reads import DeviceReads
    from fastload._place.placer import Lane
    from fastload._plan.extent import Extent
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._read.reader import Reader


@dataclass(frozen=True, slots=True)
class Errand:
    """One extent, to be brought by one reader."""

    number: int
    extent: Extent
    reader: Reader
    check: BlockCheck | None
    """What the lane will hold it to, where it arrives; None: nothing."""
    is_checked: bool
    """True if nobody need look at the bytes on the host."""


class Filling(Protocol):
    """See the classes below."""

    def may_check_later(self, number: int) -> bool:
        """False if extent ``number`` must be proven before this is done with it."""

    def fill(self, errand: Errand, lane: Lane) -> None:
        """Fill the lane's next room with the extent."""


class ByHost:
    """The reader fills memory of the host."""

    def __init__(self, busy: Busy) -> None:
        self._busy = busy

    def may_check_later(self, _: int) -> bool:
        """See :class:`Filling`."""
        return True

    def fill(self, errand: Errand, lane: Lane) -> None:
        """See :class:`Filling`."""
        self.read(errand, lane)

    def read(self, errand: Errand, lane: Lane) -> Sequence[memoryview]:
        """As :meth:`fill`; what was filled."""
        reader, extent = errand.reader, errand.extent
        alignment_bytes = reader.alignment_bytes
        with self._busy.measure("copy", "wait for a slot"):
            buffers = lane.buffers_for(extent, alignment_bytes)
        with self._busy.measure("read", f"read ({reader.name})", partial(facts_of, extent)):
            if isinstance(reader, BlockProof) and errand.check is not None:
                reader.read_unproven(extent.offset, buffers)
            else:
                reader.read_into(extent.offset, buffers)
        return buffers


class PastHost:
    """Storage writes to the device itself; what it does not take this way goes by the host."""

    def __init__(self, device_reads: DeviceReads, by_host: ByHost, busy: Busy) -> None:
        self._device_reads = device_reads
        self._by_host = by_host
        self._busy = busy

    def may_check_later(self, number: int) -> bool:
        """See :class:`Filling`."""
        return self._by_host.may_check_later(number)

    def fill(self, errand: Errand, lane: Lane) -> None:
        """See :class:`Filling`."""
        if not self._device_reads.is_on or not self._bring(errand, lane):
            self._by_host.fill(errand, lane)

    def _bring(self, errand: Errand, lane: Lane) -> bool:
        extent = errand.extent

        def memory_for(files: CuFiles) -> DeviceMemory:
            with self._busy.measure("copy", "wait for device memory"):
                return lane.device_memory_for(extent, files)

        with self._busy.measure("read", "read (cufile)", partial(facts_of, extent)):
            return self._device_reads.bring(extent, memory_for, is_checked=errand.is_checked)


def facts_of(extent: Extent) -> dict[str, object]:
    """What a trace shows of it."""
    return {"shard": extent.shard, "offset": extent.offset, "bytes": extent.length}
