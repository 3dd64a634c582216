"""LoRA bypasses load formats: vLLM looks an adapter up in the hub's cache, where ``fastload warm`` has put it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from vllm.lora.request import LoRARequest

from engines import engine, generate
from hub_server import HubServer, Repo
from tiny_models import PROMPTS, make_adapter
from vllm import SamplingParams

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from vllm import LLM

BASE, ADAPTER = "org/tiny", "org/adapter"


def _generate(llm: LLM, adapter: str) -> list[list[int]]:
    sampling = SamplingParams(temperature=0, max_tokens=8)
    outputs = llm.generate(PROMPTS, sampling, use_tqdm=False, lora_request=LoRARequest(adapter, 1, adapter))
    return [list(output.outputs[0].token_ids) for output in outputs]


def test_base_and_adapter_are_warmed_and_found_offline(
    llama: Path, tmp_path: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(tmp_path / "adapter")
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
