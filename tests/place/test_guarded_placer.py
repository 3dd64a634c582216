"""What a failing device raises, as ours. The failing placer stands for torch, which raises RuntimeError for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from fastload._place.guarded import GuardedPlacer
from fastload._plan.extent import Extent
from fastload.errors import MemoryBudgetError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fastload._place.placer import Lane
    from fastload._read.cuda_driver import DeviceMemory
    from fastload._read.gds import CuFiles
    from fastload._read.proof import BlockCheck
    from fastload._trace import Trace

DEVICE = torch.device("cuda", 3)


class Failing:
    """Placer and lane at once; each call raises ``error``, but for the ways to it."""

    staging_bytes = 7

    def __init__(self, error: Exception) -> None:
        self._error = error

    def open_lane(self, trace: Trace | None = None) -> Lane:
        return self

    @property
    def has_room(self) -> bool:
        raise self._error

    def buffers_for(self, extent: Extent, alignment_bytes: int) -> Sequence[memoryview]:
        raise self._error

    def device_memory_for(self, extent: Extent, files: CuFiles) -> DeviceMemory:
        raise self._error

    @property
    def takes_digests(self) -> bool:
        raise self._error

    def place(self, landed: Callable[[], None], check: BlockCheck | None = None) -> None:
        raise self._error

    def settle(self) -> None:
        raise self._error

    def close(self) -> None:
        raise self._error

    def catch_up(self) -> None:
        raise self._error

    def make_ahead(self) -> Iterator[None]:
        raise self._error

    def make_pages(self) -> Iterator[None]:
        raise self._error

    def take(self, number: int) -> torch.Tensor:
        raise self._error

    def finish(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    "call",
    [
        lambda placer: placer.catch_up(),
        lambda placer: next(placer.make_ahead()),
        lambda placer: placer.take(0),
        lambda placer: placer.finish(),
        lambda placer: placer.open_lane().place(lambda: None),
        lambda placer: placer.open_lane().settle(),
        lambda placer: placer.open_lane().takes_digests,
        lambda placer: placer.open_lane().close(),
        lambda placer: placer.open_lane().has_room,
        lambda placer: placer.open_lane().buffers_for(Extent(0, 0, 1), 1),
        lambda placer: placer.open_lane().device_memory_for(Extent(0, 0, 1), None),
    ],
)
def test_runtime_error_of_a_device_is_ours(call: Callable[[GuardedPlacer], object]) -> None:
    placer = GuardedPlacer(Failing(RuntimeError("CUDA error: an illegal memory access\nCompile with…")), DEVICE)
    assert placer.staging_bytes == 7
    with pytest.raises(UnsupportedError, match=r"cuda:3 failed: CUDA error: an illegal memory access\. An error of"):
        call(placer)


def test_our_own_errors_pass() -> None:
    with pytest.raises(MemoryBudgetError):
        GuardedPlacer(Failing(MemoryBudgetError(1, 0, "the device")), DEVICE).catch_up()
