"""When the tensor-parallel ranks load as a group, and why not."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import fastload
from fastload.integrations.vllm.group import Occasion, explain_alone
from fastload.integrations.vllm.ranks import Rank
from fastload.integrations.vllm.telling import tell
from fastload.report import GroupReport, RankReport
from writing import write_shards

FIRST = Occasion(
    model_config=SimpleNamespace(runner_type="generate"), local_experts=None, reader="auto", wants_group=True
)


def test_a_model_that_is_loaded_first_is_loaded_together() -> None:
    assert explain_alone(FIRST, pipeline_stages=1) is None


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"wants_group": False}, "group is false"),
        ({"model_config": None}, "a reload"),
        ({"model_config": SimpleNamespace(runner_type="draft")}, "a draft model"),
        ({"local_experts": {0, 1}}, "each wants other experts"),
        ({"local_experts": set()}, "each wants other experts"),
        ({"reader": "mmap"}, "reader is mmap"),
        ({"reader": "gds"}, "reader is gds"),
    ],
)
def test_where_ranks_may_differ_each_loads_for_itself(changed: dict[str, Any], why: str) -> None:
    assert explain_alone(replace(FIRST, **changed), pipeline_stages=1) == why


def test_stages_of_a_pipeline_load_other_tensors() -> None:
    assert explain_alone(FIRST, pipeline_stages=2) == "pipeline parallelism"


def _rank(number: int, bytes_read: int) -> RankReport:
    return RankReport(
        rank=number,
        node=0,
        bytes_read=bytes_read,
        bytes_sent=0,
        bytes_received=0,
        share_s=1.0,
        seconds=1.0,
        bottleneck="",
    )


def test_the_last_line_says_what_each_rank_read_or_why_alone(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(tmp_path, {"model.safetensors": ["a"]})
    report = fastload.load(tmp_path).report
    ranks = (_rank(0, 3 * 10**9), _rank(1, 2 * 10**9))
    group = GroupReport(rank=0, size=2, ranks=ranks, slowest=0, reason="rank 0 had its share after 1.00 s: read")
    with caplog.at_level(logging.INFO, "vllm.fastload"):
        tell(replace(report, group=group), Rank(0, 2))
        tell(report, Rank(0, 2), "a reload")
    together, alone = caplog.messages
    assert together.endswith("; 2 ranks read 3 + 2 GB from storage; rank 0 had its share after 1.00 s: read")
    assert alone.endswith("; each rank reads for itself: a reload")
