"""What is larger than the memory cgroup: a model, a smaller one than ``make test-faults`` takes; and a header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bounded import QUICK, bring_and_stream
from memory_group import memory_group, why_none
from warming import FASTLOAD, environment
from writing import entry, shard_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_warm_and_stream(tmp_path: Path) -> None:
    if reason := why_none():
        pytest.skip(reason)
    bring_and_stream(tmp_path, QUICK).check()


def test_a_header_that_would_take_more_than_there_is(tmp_path: Path) -> None:
    """It says itself how long it is; parsed, it takes eleven times that."""
    if reason := why_none():
        pytest.skip(reason)
    count = 250_000
    header = {f"model.layers.{n}.mlp.experts.weight": entry("U8", [1], n, n + 1) for n in range(count)}
    (tmp_path / "model.safetensors").write_bytes(shard_bytes(header) + bytes(count))
    with memory_group(128 << 20) as group:
        done = group.run([*FASTLOAD, "inspect", str(tmp_path)], environment())
    assert done.returncode == 21, done.stderr
    assert "cgroup" in done.stderr
