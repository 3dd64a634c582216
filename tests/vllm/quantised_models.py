"""A tiny Llama whose linear layers are quantised, in the layouts that quantisers write. The integers are random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from tiny_models import edit_config, make_llama

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Layer = dict[str, torch.Tensor]

_GROUP = 32
_INT32 = 2**31


def _int8(weight: torch.Tensor) -> Layer:
    """Of compressed-tensors: rows of int8, each with a scale."""
    scale = weight.float().abs().amax(dim=1, keepdim=True) / 127
    return {"weight": (weight / scale).round().to(torch.int8), "weight_scale": scale.to(torch.bfloat16)}


def _awq(weight: torch.Tensor) -> Layer:
    rows, columns = weight.shape
    return {
        "qweight": _integers(columns, rows // 8),
        "qzeros": _integers(columns // _GROUP, rows // 8),
        "scales": _scales(columns // _GROUP, rows),
    }


def _gptq(weight: torch.Tensor) -> Layer:
    rows, columns = weight.shape
    return {
        "qweight": _integers(columns // 8, rows),
        "qzeros": torch.full((columns // _GROUP, rows // 8), 0x77777777, dtype=torch.int32),
        "scales": _scales(columns // _GROUP, rows),
        "g_idx": torch.arange(columns, dtype=torch.int32) // _GROUP,
    }


def _integers(*shape: int) -> torch.Tensor:
    return torch.randint(-_INT32, _INT32, shape, dtype=torch.int32)


def _scales(*shape: int) -> torch.Tensor:
    return (torch.rand(shape) * 0.05 + 0.01).to(torch.bfloat16)


_INT8_CONFIG = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True, "dynamic": False},
            "input_activations": {
                "num_bits": 8, "type": "int", "strategy": "token", "symmetric": True, "dynamic": True,
            },
        }
    },
}  # fmt: skip
KINDS: dict[str, tuple[Callable[[torch.Tensor], Layer], dict[str, Any]]] = {
    "compressed-tensors": (_int8, _INT8_CONFIG),
    "awq": (_awq, {"quant_method": "awq", "bits": 4, "group_size": _GROUP, "zero_point": True, "version": "gemm"}),
    "gptq": (
        _gptq,
        {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "desc_act": False, "sym": True, "lm_head": False},
    ),
}


def make_quantised(folder: Path, kind: str) -> Path:
    """A tiny Llama in one of :data:`KINDS`."""
    quantise, config = KINDS[kind]
    made = make_llama(folder)
    content: dict[str, torch.Tensor] = {}
    for path in sorted(made.glob("*.safetensors")):
        content |= load_file(path)
        path.unlink()
    (made / "model.safetensors.index.json").unlink()
    torch.manual_seed(1)
    quantised: dict[str, torch.Tensor] = {}
    for name, tensor in content.items():
        if name.endswith("_proj.weight"):
            stem = name.removesuffix("weight")
            quantised |= {stem + part: value.contiguous() for part, value in quantise(tensor).items()}
        else:
            quantised[name] = tensor
    save_file(quantised, made / "model.safetensors", metadata={"format": "pt"})
    edit_config(made, quantization_config=config)
    return made
