"""The lines of ``fastload bench --gpus``."""

from __future__ import annotations

import pytest

from fastload.ops.bench.contestants import READINGS
from fastload.ops.bench.reckoning import Fleet, describe, find_storage_rate, reckon
from fastload.ops.bench.tables import Table
from fastload.ops.scaling import WAYS
from test_bench import sample

GB = 10**9
FLEET = Fleet(gpus=(8, 64), gpus_per_node=8, shared_rate=None)


def tables(seconds: float) -> list[Table]:
    """A GB, read cold; from the page cache it takes no time, and counts for nothing."""
    reading = READINGS[0]
    cold = Table("a GB", "cold", samples={reading: [sample(reading, 2 * seconds), sample(reading, seconds)]})
    return [cold, Table("a GB", "cached", samples={reading: [sample(reading, 0.001)]})]


def test_the_fastest_cold_reading_is_the_storages_rate() -> None:
    assert find_storage_rate(tables(0.25)) == pytest.approx(4 * GB)


def test_disks_of_their_own_grow_with_the_machines() -> None:
    found = {(gpus, each.way): each.seconds for gpus, each in reckon(FLEET, 40 * GB, 4 * GB, by_rows=False)}
    assert found[8, WAYS[0]] == found[64, WAYS[0]] == pytest.approx(80)
    assert found[8, WAYS[1]] == found[64, WAYS[1]] == pytest.approx(28)  # what ranks send each other, at 10 GB/s


def test_rows_go_only_to_who_keeps_them() -> None:
    found = {(gpus, each.way): each.seconds for gpus, each in reckon(FLEET, 40 * GB, 4 * GB, by_rows=True)}
    assert found[8, WAYS[0]] == found[64, WAYS[0]] == pytest.approx(10)
    assert found[8, WAYS[1]] == found[64, WAYS[1]] == pytest.approx(10)


def test_lines_say_what_they_rest_on() -> None:
    head, *rest = describe(FLEET, 40 * GB, tables(0.25))
    assert "4.00 GB/s a machine (measured)" in head
    assert len(rest) == 2 * len(WAYS)
    whole, rows = rest[1].split(";")
    assert whole.split() == ["8", "GPUs", "a", "group", "per", "node", "28.0", "s", "limited", "by", "exchange"]
    assert rows.split() == ["with", "shard=", "by", "rows", "10.0", "s", "limited", "by", "storage"]


def test_nothing_is_reckoned_from_nothing() -> None:
    assert describe(FLEET, GB, []) == ["nothing to reckon by: storage was not measured with an empty page cache"]
