"""How much of a device's memory a load may take beside the model: a gibibyte, unless ``device_bytes`` says otherwise.

What is read ahead, the slots on the device, the tensor that vLLM copies from and the next one must fit. Where the
largest tensors do not (an embedding has 2 GB), these are handed out in host memory, and vLLM brings them over itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastload.options import Settings

_DEVICE_BYTES = 1 << 30  # 1 GiB
_LEAST_STAGING_BYTES = 64 << 20  # 64 MiB


@dataclass(frozen=True, slots=True)
class Room:
    """How a load keeps within what it may take."""

    settings: Settings
    host_above_bytes: int | None = None
    """Larger tensors are handed out in host memory."""


def fit(sizes: Sequence[int], settings: Settings) -> Room:
    """The largest staging by which the fewest bytes have to go by host memory.

    Twice the staging is reckoned: what is read ahead, and as much in slots; and two tensors of the largest size.

    Args:
        sizes: of the tensors, in bytes.
        settings: bound it by ``staging_bytes`` and ``device_bytes``.
    """
    limit_bytes = settings.device_bytes or _DEVICE_BYTES
    tried = [settings.staging_bytes]
    while tried[-1] // 2 >= _LEAST_STAGING_BYTES:
        tried.append(tried[-1] // 2)

    def by_host_bytes(staging_bytes: int) -> int:
        return sum(size for size in sizes if size > limit_bytes // 2 - staging_bytes)

    staging_bytes = min(tried, key=by_host_bytes)  # the first of equals, which is the largest
    return Room(
        replace(settings, staging_bytes=staging_bytes, device_bytes=limit_bytes), limit_bytes // 2 - staging_bytes
    )
