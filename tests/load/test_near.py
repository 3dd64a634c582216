"""The names that an error suggests: near ones, found in a time that no header can stretch."""

from __future__ import annotations

import time

import pytest

from fastload._load.request.near import find_near

MANY = [
    f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
    for layer in range(61)
    for expert in range(540)
    for part in ("gate", "up", "down")
]
"""98,820: as many as a large mixture of experts has."""


@pytest.mark.parametrize(
    ("glob", "meant"),
    [
        ("model.layers.3.mlp.expert.7.up_proj.*", "model.layers.3.mlp.experts.7.up_proj.weight"),
        ("model.layer.57.mlp.experts.532.up_proj.weight", "model.layers.57.mlp.experts.532.up_proj.weight"),
        ("layers.60.mlp.experts.70.down_proj.weight", "model.layers.60.mlp.experts.70.down_proj.weight"),
    ],
)
def test_a_near_name_is_found_wherever_it_lies(glob: str, meant: str) -> None:
    started = time.process_time()
    assert meant in find_near(glob, MANY)
    assert time.process_time() - started < 0.3


def test_names_without_a_common_word_are_compared_too() -> None:
    assert find_near("embedings", ["lm_head", "embeddings", "norm"]) == ["embeddings"]


def test_names_that_nobody_would_read_are_not_compared() -> None:
    """What it takes to compare grows with the square of the length."""
    long = [f"{'ab' * 50_000}{n}" for n in range(100)]
    started = time.process_time()
    assert find_near("ab" * 100, [*long, "ab" * 90]) == ["ab" * 90]
    assert find_near(long[0][:-1], long) == []
    assert time.process_time() - started < 0.3


def test_nothing_is_near_to_what_is_nothing_like_it() -> None:
    assert find_near("zzz", MANY) == []
