"""What one rank does in ``test_transformers_ranks.py``: a Llama that transformers itself deals out is filled.

``torchrun --nproc-per-node 2 transformers_ranks.py FOLDER``; each rank prints what differs, which is nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.distributed.pipeline_parallel import apply_pipeline_parallelism
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

import fastload

TOKENS = torch.arange(1, 9).unsqueeze(0)


def main(folder: str) -> None:
    """Both ways of dealing a model out, each by itself."""
    dist.init_process_group("gloo")
    whole = {name: tensor for path in Path(folder).glob("*.safetensors") for name, tensor in load_file(path).items()}
    mesh = init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("ranks",))
    found = {"tensor": fill_by_tensors(folder, whole, mesh), "pipeline": fill_stage(folder, whole, mesh)}
    sys.stdout.write(json.dumps(found) + "\n")
    dist.destroy_process_group()


def empty(folder: str) -> Any:
    """The model that a folder's config describes."""
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)


def finds_plan_before(model: Any) -> bool:
    """True of transformers 5.24."""
    return hasattr(model, "_expand_parallel_plan")


def deal_out(model: Any, mesh: Any) -> Any:
    """By tensors."""
    if not finds_plan_before(model):
        return apply_tensor_parallelism(model, mesh)
    return apply_tensor_parallelism(model, mesh, model._expand_parallel_plan(model.tp_plan))


def fill_by_tensors(folder: str, whole: dict[str, torch.Tensor], mesh: Any) -> dict[str, Any]:
    """By its class's own plan, as ``tp_plan="auto"`` does."""
    model = deal_out(empty(folder), mesh)
    report = fastload.load_into(model, folder, group=dist.group.WORLD)
    parameters = dict(model.named_parameters())
    expected = {name: _part_of(whole[name], parameter) for name, parameter in parameters.items()}
    loaded = fastload.load(folder, group=dist.group.WORLD, shard=parameters)
    alone = empty(folder)
    fastload.load_into(alone, folder)
    with torch.no_grad():
        logits, expected_logits = (each(TOKENS).logits.float() for each in (model, alone))
    return {
        "dealt out": sum(hasattr(each, "placements") for each in parameters.values()),
        "plan is found before": finds_plan_before(model),
        "filled wrong": [name for name, each in parameters.items() if not torch.equal(_local(each), expected[name])],
        "loaded wrong": [name for name in whole if not torch.equal(loaded[name], expected[name])],
        "read": report.bytes_read,
        "says the same": bool(torch.equal(logits.argmax(-1), expected_logits.argmax(-1))),
    }


def fill_stage(folder: str, whole: dict[str, torch.Tensor], mesh: Any) -> dict[str, Any]:
    """Each rank has other layers."""
    model = apply_pipeline_parallelism(empty(folder), mesh)
    report = fastload.load_into(model, folder, strict=False, group=dist.group.WORLD)
    parameters = dict(model.named_parameters())
    loaded = fastload.load(folder, group=dist.group.WORLD, shard=parameters.__contains__)
    return {
        "has": len(parameters),
        "filled wrong": [name for name, each in parameters.items() if not torch.equal(each, whole[name])],
        "loaded wrong": [name for name in parameters if not torch.equal(loaded.pop(name), whole[name])],
        "loaded besides": list(loaded),
        "read": report.bytes_read,
    }


def _local(parameter: Any) -> torch.Tensor:
    local: torch.Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return local


def _part_of(whole: torch.Tensor, parameter: Any) -> torch.Tensor:
    """As torch itself deals it out."""
    if not hasattr(parameter, "placements"):
        return whole
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None).to_local()


if __name__ == "__main__":
    main(*sys.argv[1:])
