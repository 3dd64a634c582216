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
        """Needs the device's context to be the thread's current one.

        Raises:
            UnsupportedError: no such memory is left, or cuFile does not take it.
        """
        self._files = files
        self._driver = load_driver()
        self.memory = self._driver.allocate(nbytes)
        try:
            files.register(self.memory)
        except BaseException:
            self._driver.free(self.memory)
            raise
        self.tensor = torch.as_tensor(self.memory, device=device)
        self.free = torch.cuda.Event(blocking=True)  # as for a pinned slot

    def close(self) -> None:
        """Nothing that reads or writes it may be under way. What cuFile does not let go of stays the process's."""
        if self._files.release(self.memory):
            self._driver.free(self.memory)
