"""What many GPUs would take, reckoned."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import fastload
from fastload.ops.scaling import WAYS, Site, estimate

GB = 10**9
SITE = Site(
    model_bytes=140 * GB,
    gpus=64,
    gpus_per_node=8,
    shared_rate=40 * GB,
    node_rate=10 * GB,
    network_rate=25 * GB,
    exchange_rate=100 * GB,
    device_rate=25 * GB,
)


@pytest.mark.parametrize(
    ("way", "seconds", "limit", "copies"),
    [(WAYS[0], 224.0, "storage", 64), (WAYS[1], 28.0, "storage", 8), (WAYS[2], 14.0, "node", 1)],
)
def test_the_slowest_decides(way: str, seconds: float, limit: str, copies: int) -> None:
    found = estimate(SITE, way)
    assert found.seconds == pytest.approx(seconds)
    assert found.limit == limit
    assert found.storage_bytes == copies * SITE.model_bytes


def test_one_gpu_gains_nothing() -> None:
    alone = replace(SITE, gpus=1)
    assert len({estimate(alone, way).seconds for way in WAYS}) == 1


def test_a_group_stays_flat_where_storage_is_the_limit() -> None:
    """As benchmarks/group_scaling.py measured it: 201 MB at 100 MB/s, on 1, 2 and 4 ranks."""
    site = replace(SITE, model_bytes=201_000_000, shared_rate=100e6, node_rate=100e6, exchange_rate=GB, gpus_per_node=4)
    together = [estimate(replace(site, gpus=ranks), WAYS[1]).seconds for ranks in (1, 2, 4)]
    alone = [estimate(replace(site, gpus=ranks), WAYS[0]).seconds for ranks in (1, 2, 4)]
    assert together == pytest.approx([2.01, 2.01, 2.01])
    assert alone == pytest.approx([2.01, 4.02, 8.04])


def test_what_is_sharded_travels_less() -> None:
    slow = replace(SITE, exchange_rate=GB)
    assert estimate(slow, WAYS[1]).limit == "exchange"
    assert estimate(replace(slow, kept_fraction=1 / 8), WAYS[1]).seconds == pytest.approx(7 / 8 * 140)


def test_what_is_sharded_over_a_node_is_read_once_whether_together_or_not() -> None:
    """By rows alone. A rank by itself reads only its own."""
    sharded = replace(SITE, kept_fraction=1 / 8)
    alone, together = (estimate(sharded, way) for way in WAYS[:2])
    assert alone.seconds == together.seconds == pytest.approx(28.0)
    assert alone.storage_bytes == together.storage_bytes == 8 * SITE.model_bytes


def test_what_is_sharded_over_all_nodes_is_read_where_it_is_kept() -> None:
    """64 ranks keep one part in 64 each: a node's eight read an eighth of the model."""
    sharded = replace(SITE, kept_fraction=1 / 64)
    found = estimate(sharded, WAYS[1])
    assert found.seconds == pytest.approx(3.5)
    assert found.limit == "storage"
    assert found.storage_bytes == SITE.model_bytes
    one_reads = estimate(replace(sharded, network_rate=GB), WAYS[2])
    assert one_reads.seconds == pytest.approx(7 / 8 * 140)
    assert one_reads.limit == "network"
    assert one_reads.storage_bytes == SITE.model_bytes


def test_less_than_all_is_kept_by_all() -> None:
    """As of one stage of a pipeline: what nobody keeps is not read."""
    site = replace(SITE, gpus=8, kept_fraction=1 / 16)
    assert [estimate(site, way).storage_bytes for way in WAYS] == [SITE.model_bytes / 2] * 3


def test_a_network_may_be_the_limit() -> None:
    assert estimate(replace(SITE, network_rate=GB), WAYS[2]).limit == "network"


def test_the_last_node_may_have_fewer_gpus() -> None:
    """Nine GPUs, of which each keeps an eighth: the ninth has a node of its own, which reads an eighth."""
    site = replace(SITE, gpus=9, kept_fraction=1 / 8)
    assert estimate(site, WAYS[1]).storage_bytes == SITE.model_bytes * 9 / 8
    assert estimate(replace(site, gpus=17), WAYS[1]).storage_bytes == SITE.model_bytes * 17 / 8


@pytest.mark.parametrize(
    "change",
    [
        {"gpus": 0},
        {"gpus": 1.5},
        {"model_bytes": math.nan},
        {"network_rate": 0.0},
        {"network_rate": math.nan},
        {"kept_fraction": 0.0},
        {"kept_fraction": 1.5},
        {"kept_fraction": math.nan},
    ],
)
def test_what_is_no_site(change: dict[str, float]) -> None:
    with pytest.raises(fastload.UsageError):
        replace(SITE, **change)  # type: ignore[arg-type] # one of its fields


def test_there_is_no_other_way() -> None:
    with pytest.raises(fastload.UsageError, match="a group per node"):
        estimate(SITE, "by pigeon")
