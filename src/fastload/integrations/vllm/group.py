"""Whether the tensor-parallel ranks load as a group, so that each byte leaves storage once, or each for itself.

Ranks of a group wait for each other, so all of them must ask for the same, in the same order. That is certain where a
model is loaded the first time; wherever it is not, each rank loads for itself, and says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastload._load.group.rank_group import UNDIVIDED_READERS

if TYPE_CHECKING:
    from collections.abc import Container

    from torch.distributed import ProcessGroup

_DRAFT = "draft"
"""What vLLM calls the runner of a draft model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What is about to be loaded."""

    model_config: Any | None
    """vLLM's; None where a model is reloaded."""
    local_experts: Container[int] | None
    """The only ones that this rank reads; None: it reads all."""
    reader: str
    wants_group: bool
    """What the extra config says."""


@dataclass(frozen=True, slots=True)
class GroupChoice:
    """Who loads with this rank."""

    group: ProcessGroup | None = None
    why_alone: str | None = None
    """Why each of several ranks loads for itself."""


def choose_group(occasion: Occasion) -> GroupChoice:
    """The ranks that load with this one, which vLLM has connected."""
    from vllm.distributed.parallel_state import get_pp_group, get_tp_group  # noqa: PLC0415 - vLLM is here

    why_alone = explain_alone(occasion, pipeline_stages=get_pp_group().world_size)
    if why_alone is not None:
        return GroupChoice(why_alone=why_alone)
    ranks = get_tp_group()
    return GroupChoice(ranks.cpu_group) if ranks.world_size > 1 else GroupChoice(why_alone="tensor_parallel_size is 1")


def explain_alone(occasion: Occasion, *, pipeline_stages: int) -> str | None:
    """Why the ranks cannot load together; None: they can."""
    config = occasion.model_config
    obstacles = {
        "group is false": not occasion.wants_group,
        "a reload": config is None,
        "a draft model": config is not None and config.runner_type == _DRAFT,
        "pipeline parallelism": pipeline_stages > 1,
        "each wants other experts": occasion.local_experts is not None,
        f"reader is {occasion.reader}": occasion.reader in UNDIVIDED_READERS,
    }
    return next((why for why, holds in obstacles.items() if holds), None)
