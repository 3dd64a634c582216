"""Device memory that storage writes to by itself.

It is not torch's: the caching allocator gives pieces of larger allocations, and cuFile registers whole ones, for which
the device has little room (BAR1). So it is small, of the driver's own, and used again for extent after extent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fastload._read.cuda_driver import load_driver

if TYPE_CHECKING:
    from fastload._read.gds import CuFiles


class LandingBuffer:
    """Registered with cuFile; ``free`` is the event after which it may be written again."""

    def __init__(self, device: torch.device, nbytes: int, files: CuFiles) -> None:
        """Made by the thread that reads.

        Raises:
            UnsupportedError: no such memory is left, or cuFile does not take it.
        """
        self._files = files
        self._driver = load_driver()
        # torch makes a context current on a thread when it must, which may not have been yet.
        self._driver.enter(device.index)
        self.memory = self._driver.allocate(nbytes)
        try:
            self.tensor = torch.as_tensor(self.memory, device=device)  # needs numpy, as torch wants it
            files.register(self.memory)
        except BaseException:
            self._driver.free(self.memory)
            raise
        self.free = torch.cuda.Event(blocking=True)  # as for a pinned slot

    def close(self) -> None:
        """Nothing that reads or writes it may be under way. What cuFile does not let go of stays the process's."""
        if self._files.release(self.memory):
            self._driver.free(self.memory)
