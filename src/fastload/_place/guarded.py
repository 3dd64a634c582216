"""A placer whose device may fail: a wrapper with the placer's own protocol that makes what torch says ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from fastload.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from fastload._place.placer import Lane, Placer
    from fastload._plan.extent import Extent
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._trace import Trace


@contextmanager
def cuda_errors(device: torch.device) -> Iterator[None]:
    """Raise ``UnsupportedError`` for a ``RuntimeError``, which is all that torch says of a failing device."""
    try:
        yield
    except RuntimeError as exc:
        said = str(exc).partition("\n")[0]
        hint = "An error of an earlier kernel stays with its process: start a new one. If it comes again, see dmesg"
        raise UnsupportedError(f"{device} failed: {said}", hint) from exc


class GuardedPlacer:
    """See :class:`~fastload._place.placer.Placer`."""

    def __init__(self, placer: Placer, device: torch.device) -> None:
        self._placer = placer
        self._device = device

    @property
    def staging_bytes(self) -> int:
        """See :class:`~fastload._place.placer.Placer`."""
        return self._placer.staging_bytes

    def open_lane(self, trace: Trace | None = None) -> Lane:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            return _GuardedLane(self._placer.open_lane(trace), self._device)

    def catch_up(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            self._placer.catch_up()

    def make_ahead(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            self._placer.make_ahead()

    def take(self, number: int) -> torch.Tensor:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            return self._placer.take(number)

    def finish(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            self._placer.finish()


class _GuardedLane:
    def __init__(self, lane: Lane, device: torch.device) -> None:
        self._lane = lane
        self._device = device

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        with cuda_errors(self._device):
            return self._lane.buffers_for(extent, alignment_bytes)

    def device_memory_for(self, extent: Extent, files: CuFiles) -> DeviceMemory:
        with cuda_errors(self._device):
            return self._lane.device_memory_for(extent, files)

    @property
    def takes_digests(self) -> bool:
        with cuda_errors(self._device):
            return self._lane.takes_digests

    def place(self, landed: Callable[[], None], check: BlockCheck | None = None) -> None:
        with cuda_errors(self._device):
            self._lane.place(landed, check)

    def settle(self) -> None:
        with cuda_errors(self._device):
            self._lane.settle()

    def close(self) -> None:
        with cuda_errors(self._device):
            self._lane.close()
