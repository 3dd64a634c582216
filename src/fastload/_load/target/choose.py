"""The memory that a load goes to: a device's, the host's, or the page cache's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastload._load.target.cuda_early import choose_digests
from fastload._load.target.cuda_target import CudaTarget
from fastload._load.target.host_target import HostTarget
from fastload._load.target.mapped_target import choose_mapped

if TYPE_CHECKING:
    import torch

    from fastload._fetch.checkpoint.fetched import Fetched
    from fastload._load.target.keeping import Keeping
    from fastload._load.target.target import Target
    from fastload.options import Settings


def choose_target(device: torch.device, keeping: Keeping, settings: Settings, fetched: Fetched) -> Target:
    """The target that is ``device``'s fresh memory, or for ``reader="mmap"`` the page cache.

    Raises:
        UnsupportedError: ``mmap`` for a device.
    """
    if settings.reader == "mmap":
        return choose_mapped(device, keeping, fetched.checkpoint, copies_all=bool(keeping.cuts))
    if device.type == "cuda":
        return CudaTarget(device, keeping, settings.device_bytes, choose_digests(device, fetched.evidence))
    return HostTarget(keeping)
