"""What a load to a device takes beside the model stays within what it may."""

from __future__ import annotations

import pytest

from fastload import Options
from fastload.integrations.vllm.room import fit
from fastload.options import decide_settings

MIB = 1 << 20
_LLAMA_8B = [1002 * MIB, *([112 * MIB] * 96), *([32 * MIB] * 64), 1002 * MIB]
_LLAMA_70B = [2004 * MIB, *([448 * MIB] * 240), *([128 * MIB] * 160), 2004 * MIB]


@pytest.mark.parametrize(
    ("sizes", "device_bytes", "staging_mib", "host_above_mib"),
    [
        (_LLAMA_8B, None, 256, 256),
        (_LLAMA_70B, None, 64, 448),
        (_LLAMA_70B, "5Gi", 256, 2304),
        ([], None, 256, 256),
    ],
)
def test_as_few_bytes_as_possible_go_by_host_memory(
    sizes: list[int], device_bytes: str | None, staging_mib: int, host_above_mib: int
) -> None:
    room = fit(sizes, decide_settings(Options(device_bytes=device_bytes), {}, environment={}))
    assert (room.settings.staging_bytes, room.host_above_bytes) == (staging_mib * MIB, host_above_mib * MIB)
    largest = max((size for size in sizes if size <= host_above_mib * MIB), default=0)
    assert 2 * room.settings.staging_bytes + 2 * largest <= (room.settings.device_bytes or 0)
