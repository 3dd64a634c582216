"""Real engines, and what two of them must have in common: tokens, and every byte of their parameters."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

from tiny_models import PROMPTS
from vllm import LLM, SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Outcome:
    """What an engine is made of, and what it says."""

    digests: list[str]
    """A sha256 over all parameters and buffers, by rank."""
    tokens: list[list[int]]


@contextmanager
def engine(model: str, load_format: str = "fastload", **options: Any) -> Iterator[LLM]:
    """An engine without compilation, while the ``with`` lasts."""
    defaults = {
        "enforce_eager": True,
        "max_model_len": 128,
        "dtype": "bfloat16",
        "distributed_executor_backend": "uni",
    }
    made = None
    try:
        made = LLM(model=model, load_format=load_format, **(defaults | options))
        yield made
    finally:
        if made is not None:
            made.llm_engine.engine_core.shutdown()
        del made
        cleanup_dist_env_and_memory()


def generate(llm: LLM) -> list[list[int]]:
    """The most likely next tokens after some prompts."""
    outputs = llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def digests(llm: LLM) -> list[str]:
    """See :class:`Outcome`."""
    return list(llm.collective_rpc(digest_worker))


def digest_worker(worker: Any) -> str:
    """The digest of one worker's model."""
    return _digest(worker.get_model())


def digest_draft(worker: Any) -> str:
    """The digest of one worker's draft model."""
    return _digest(worker.model_runner.drafter.model)


def _digest(model: torch.nn.Module) -> str:
    """A sha256 over all parameters and buffers, names, dtypes and shapes included."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def outcome(model: str, load_format: str = "fastload", *, speaks: bool = True, **options: Any) -> Outcome:
    """Of an engine that is started for it; it is not asked for tokens unless it ``speaks``."""
    with engine(model, load_format, **options) as llm:
        return Outcome(digests(llm), generate(llm) if speaks else [])


class Engines:
    """Outcomes of vLLM's own loader, each made once."""

    def __init__(self) -> None:
        self._known: dict[str, Outcome] = {}

    def expected(self, model: str, *, speaks: bool = True, **options: Any) -> Outcome:
        """What ``--load-format safetensors`` makes of ``model``."""
        key = repr((model, speaks, sorted(options.items())))
        if key not in self._known:
            self._known[key] = outcome(model, "safetensors", speaks=speaks, **options)
        return self._known[key]
