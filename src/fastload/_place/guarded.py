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
        raise _failure(device, exc) from exc


def _failure(device: torch.device, exc: RuntimeError) -> UnsupportedError:
    said = str(exc).partition("\n")[0]
    hint = "An error of an earlier kernel stays with its process: start a new one. If it comes again, see dmesg"
    return UnsupportedError(f"{device} failed: {said}", hint)


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

    def make_ahead(self) -> Iterator[None]:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            yield from self._placer.make_ahead()

    def make_pages(self) -> Iterator[None]:
        """See :class:`~fastload._place.placer.Placer`."""
        return self._placer.make_pages()

    def take(self, number: int) -> torch.Tensor:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            return self._placer.take(number)

    def finish(self) -> None:
        """See :class:`~fastload._place.placer.Placer`."""
        with cuda_errors(self._device):
            self._placer.finish()


class _GuardedLane:
    """Its calls are a load's most frequent: a ``try`` costs nothing, a context manager a microsecond."""

    def __init__(self, lane: Lane, device: torch.device) -> None:
        self._lane = lane
        self._device = device

    @property
    def has_room(self) -> bool:
        try:
            return self._lane.has_room
        except RuntimeError as exc:
            raise _failure(self._device, exc) from exc

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        try:
            return self._lane.buffers_for(extent, alignment_bytes)
        except RuntimeError as exc:
            raise _failure(self._device, exc) from exc

    def device_memory_for(self, extent: Extent, files: CuFiles) -> DeviceMemory:
        try:
            return self._lane.device_memory_for(extent, files)
        except RuntimeError as exc:
            raise _failure(self._device, exc) from exc

    @property
    def takes_digests(self) -> bool:
        try:
            return self._lane.takes_digests
        except RuntimeError as exc:
            raise _failure(self._device, exc) from exc

    def place(self, landed: Callable[[], None], check: BlockCheck | None = None) -> None:
        try:
            self._lane.place(landed, check)
        except RuntimeError as exc:
            raise _failure(self._device, exc) from exc

    def settle(self) -> None:
        try:
            self._lane.settle()
        except RuntimeError as exc:
            raise _failure(self._device, exc) from exc

    def close(self) -> None:
        try:
            self._lane.close()
        except RuntimeError as exc:
            raise _failure(self._device, exc) from exc
