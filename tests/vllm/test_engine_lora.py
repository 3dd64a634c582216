"""LoRA bypasses load formats: vLLM looks an adapter up in the hub's cache, where ``fastload warm`` has put it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from vllm.lora.request import LoRARequest

from engines import engine, generate
from hub_server import HubServer, Repo
from tiny_models import PROMPTS
from vllm import SamplingParams

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from vllm import LLM

BASE, ADAPTER = "org/tiny", "org/adapter"


def _make_adapter(folder: Path) -> Path:
    folder.mkdir()
    torch.manual_seed(5)
    stem = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    halves = {
        stem.format(layer, half): torch.randn(shape).to(torch.bfloat16)
        for layer in range(4)
        for half, shape in (("A", (8, 128)), ("B", (128, 8)))
    }
    save_file(halves, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _generate(llm: LLM, adapter: str) -> list[list[int]]:
    sampling = SamplingParams(temperature=0, max_tokens=8)
    outputs = llm.generate(PROMPTS, sampling, use_tqdm=False, lora_request=LoRARequest(adapter, 1, adapter))
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_base_and_adapter_are_warmed_and_found_offline(
    llama: Path, tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = _make_adapter(tmp_path / "adapter")
    repos = {
        name: Repo({path.name: path.read_bytes() for path in folder.iterdir()})
        for name, folder in ((BASE, llama), (ADAPTER, adapter))
    }
    with HubServer(repos) as hub, monkeypatch.context() as online:
        online.setenv("HF_ENDPOINT", hub.url)
        online.setenv("HF_HUB_OFFLINE", "0")
        subprocess.run([sys.executable, "-m", "fastload", "warm", BASE, ADAPTER], check=True)
    lora: dict[str, Any] = {"enable_lora": True, "max_lora_rank": 8}
    with engine(str(llama), "safetensors", **lora) as llm:
        expected = _generate(llm, str(adapter))
    with engine(BASE, **lora) as llm:
        assert _generate(llm, ADAPTER) == expected
        assert generate(llm) != expected
