"""Load a model with tensor parallelism: each byte leaves storage once, each rank keeps its part.

torchrun --nproc-per-node 2 examples/torchrun_tp.py ./path/to/model

The plan is a Llama's ``config.base_model_tp_plan``, as Hugging Face models bring it along: which linear layers are cut
by columns, which by rows.
"""

from __future__ import annotations

import fnmatch
import sys
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch.distributed.tensor import Shard

import fastload

if TYPE_CHECKING:
    from collections.abc import Mapping

TP_PLAN = {
    "layers.*.self_attn.q_proj": "colwise",
    "layers.*.self_attn.k_proj": "colwise",
    "layers.*.self_attn.v_proj": "colwise",
    "layers.*.self_attn.o_proj": "rowwise",
    "layers.*.mlp.gate_proj": "colwise",
    "layers.*.mlp.up_proj": "colwise",
    "layers.*.mlp.down_proj": "rowwise",
}


def placements(plan: Mapping[str, str], names: list[str]) -> dict[str, Shard]:
    """``plan``, by the weights of the layers that are there: torch stores a linear layer as [out, in].

    A layer that is cut by columns of its output loses rows of its weight, and as much of its bias. One that is cut by
    rows of its input keeps its whole bias. What has another style stays whole.
    """
    wanted: dict[str, Shard] = {}
    for layer, style in plan.items():
        if style == "colwise":
            wanted |= {f"*{layer}.weight": Shard(0), f"*{layer}.bias": Shard(0)}
        elif style == "rowwise":
            wanted |= {f"*{layer}.weight": Shard(1)}
    return {glob: placement for glob, placement in wanted.items() if fnmatch.filter(names, glob)}


def main(model: str) -> None:
    """Load, and let rank 0 say what everybody did."""
    dist.init_process_group("gloo")
    names = list(fastload.inspect(model).tensors)
    weights = fastload.load(model, group=dist.group.WORLD, shard=placements(TP_PLAN, names))
    kept = sum(tensor.nbytes for tensor in weights.values())
    group = weights.report.group
    if dist.get_rank() == 0 and group is not None:
        print(f"{len(weights)} tensors; rank 0 keeps {kept / 1e6:.1f} MB")
        for rank in group.ranks:
            print(f"rank {rank.rank}: read {rank.bytes_read / 1e6:.1f} MB, received {rank.bytes_received / 1e6:.1f} MB")
        print(group.reason)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
