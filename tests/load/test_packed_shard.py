"""F4, of which two elements are one byte, divided by rows."""

from __future__ import annotations

import torch
from torch.distributed.tensor import Shard

from fastload._format.dtype import DTYPES
from fastload._format.header import TensorInfo
from fastload._group.process_group import Position
from fastload._load.request.shard import choose_parts
from fastload._place.tensors import torch_layout


def test_rows_of_packed_elements_keep_their_width() -> None:
    """It was halved twice, and a module's own DTensor of the right shape was a mismatch."""
    info = TensorInfo("w", DTYPES["F4"], (8, 6), 0, 24)
    parts = choose_parts({"w": Shard(0)}, [info], Position(1, 2))
    kept = parts.shape(parts.narrow(info))
    assert (kept.begin, kept.end) == (12, 24)
    assert torch_layout(kept) == (torch.float4_e2m1fn_x2, (4, 3))
