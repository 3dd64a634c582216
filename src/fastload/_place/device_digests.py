"""From when on a device takes the block digests of a load, and why it does not."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from fastload._place.gpu_digest import BlockDigester, warm_up

if TYPE_CHECKING:
    from concurrent.futures import Future


@cache
def _begin(device: torch.device) -> Future[None]:
    """Once per process and device: what was compiled stays, and what cannot be done now cannot be done later."""
    return warm_up(device)


class DeviceDigests:
    """The digests of one device; made as early as possible, since its kernels are compiled from then on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ready = _begin(device)
        self._is_full = False

    def open(self, buffer_bytes: int) -> BlockDigester | None:
        """A digester for buffers of that size, under the current stream; None as long as the CPU must do it.

        Its few KiB may be what a device that the weights fill has no room for: no reason to end a load.
        """
        if self._is_full or not self._ready.done() or self._ready.exception() is not None:
            return None
        try:
            return BlockDigester(self._device, buffer_bytes)
        except torch.OutOfMemoryError:
            self._is_full = True
            return None

    def require(self) -> None:
        """Wait until the device can digest.

        Raises:
            UnsupportedError: it never will.
        """
        self._ready.result()

    def explain(self) -> str:
        """Why the CPU digests, where it does."""
        if not self._ready.done():
            return f"the kernels for {self._device} were still being compiled"
        failure = self._ready.exception()
        if failure is not None:
            return str(failure)
        if self._is_full:
            return f"{self._device} had no room left for digests"
        return f"the kernels for {self._device} were compiled while the first blocks passed"
