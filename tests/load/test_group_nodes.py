"""Several machines: network namespaces with names of their own, joined by a pair of virtual cables.

A machine's tiers are folders here; that of the other one is one that it is not told of.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import safetensors.torch

import fastload
import ranks
from fastload._verify.digest import BLOCK_BYTES
from models import MIB, random_tensor
from proven_models import REPO, Model
from rank_workers import CABLE, Workers, workers_of
from ranks import fingerprints
from stored_models import COMMIT, write_cache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fastload import Options

NODES = [f"flnode{number}x{os.getpid()}" for number in range(2)]
SIZE = 4
HALF = SIZE // 2

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2, to make network namespaces"
)


def run_ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """10.77.0.1 and 10.77.0.2."""
    try:
        for name in NODES:
            run_ip("netns", "add", name)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"this machine grants no network namespaces: {exc.stderr.decode().strip()}")
    cable = [f"fl{number}x{os.getpid()}" for number in range(2)]
    try:
        run_ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for number, name in enumerate(NODES):
            run_ip("link", "set", cable[number], "netns", name, "name", CABLE)
            run_ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", CABLE)
            run_ip("-n", name, "link", "set", CABLE, "up")
            run_ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in NODES:
            run_ip("netns", "del", name)


@pytest.fixture(scope="module")
def workers(two_nodes: None) -> Iterator[Workers]:
    """Ranks 0 and 1 on one node, 2 and 3 on the other."""
    with workers_of(SIZE, lambda rank: NODES[rank // HALF], "10.77.0.1") as made:
        yield made


@pytest.fixture
def doomed(two_nodes: None) -> Iterator[Workers]:
    with workers_of(SIZE, lambda rank: NODES[rank // HALF], "10.77.0.1") as made:
        yield made


def per_node(first: Options, second: Options) -> list[dict[str, Options]]:
    return [{"options": first if rank < HALF else second} for rank in range(SIZE)]


def test_each_node_with_the_model_reads_it_once(workers: Workers, model: Model, tmp_path: Path) -> None:
    write_cache(model.local, REPO, COMMIT, model.files)
    write_cache(tmp_path / "second", REPO, COMMIT, model.files)
    options = per_node(model.options, replace(model.options, local=str(tmp_path / "second")))
    loaded = workers.call(ranks.load_by_rank, REPO, options)
    assert all(got == fingerprints(model.tensors) for got, _ in loaded)
    group = loaded[0][1].group
    assert group is not None
    assert [each.node for each in group.ranks] == [0, 0, 1, 1]
    size = sum(tensor.nbytes for tensor in model.tensors.values())
    for node in range(2):
        assert sum(each.bytes_read for each in group.ranks if each.node == node) == pytest.approx(size, rel=0.05)


def test_staging_is_divided_among_those_who_send(workers: Workers, model: Model, tmp_path: Path) -> None:
    """Of the others one sends, the node's own; the rest of the lanes reads."""
    big = {"model.safetensors": safetensors.torch.save({"a": random_tensor(64 * MIB, 1)})}
    write_cache(model.local, REPO, COMMIT, big)
    write_cache(tmp_path / "second", REPO, COMMIT, big)
    mine = replace(model.options, staging_bytes="20Mi", reader="direct", verify="off")
    for _, report in workers.call(
        ranks.load_by_rank, REPO, per_node(mine, replace(mine, local=str(tmp_path / "second")))
    ):
        assert report.peak_staging_bytes == 20 * MIB


def test_a_node_without_the_model_gets_it_from_the_one_that_has_it(
    workers: Workers, model: Model, tmp_path: Path
) -> None:
    """It is read once, and crosses to the other node once."""
    model.warmed()
    alone = replace(model.options, shared=None, tiers=("local",))
    options = per_node(alone, replace(alone, local=str(tmp_path / "empty")))
    loaded = workers.call(ranks.load_by_rank, REPO, options)
    assert all(got == fingerprints(model.tensors) for got, _ in loaded)
    group = loaded[0][1].group
    assert group is not None
    size = sum(tensor.nbytes for tensor in model.tensors.values())
    proven_bytes = 2 * BLOCK_BYTES  # the first blocks of both shards, for their headers
    assert sum(each.bytes_read - proven_bytes for each in group.ranks[:HALF]) <= 1.05 * size
    assert [each.bytes_read for each in group.ranks[HALF:]] == [0, 0]
    assert sum(each.bytes_received for each in group.ranks) <= 3 * size + 4096  # to each of the three others, once
    assert sum(each.bytes_sent for each in group.ranks[:HALF]) <= 2 * size + 4096  # of which one is on the other node
    assert loaded[2][1].tier == "rank 0"
    assert loaded[2][1].commit == COMMIT
    assert {report.evidence for _, report in loaded} == {"manifest"}


def test_the_second_node_may_be_the_one_that_has_it(workers: Workers, model: Model, tmp_path: Path) -> None:
    model.warmed()
    alone = replace(model.options, shared=None, tiers=("local",))
    options = per_node(replace(alone, local=str(tmp_path / "empty")), alone)
    loaded = workers.call(ranks.load_by_rank, REPO, options)
    assert all(got == fingerprints(model.tensors) for got, _ in loaded)


def test_nobody_has_it(workers: Workers, model: Model) -> None:
    errors = workers.try_call(ranks.load_with, REPO, {"options": replace(model.options, tiers=("local",))})
    assert all(isinstance(error, fastload.ModelNotFoundError | fastload.GroupError) for error in errors)
    assert any(isinstance(error, fastload.ModelNotFoundError) for error in errors)


def test_a_rank_that_supplies_another_node_closes_early(workers: Workers, model: Model, tmp_path: Path) -> None:
    """Those who have no model depend on it, so it goes on; so does the one that passes on to its own node."""
    model.warmed()
    alone = replace(model.options, shared=None, tiers=("local",), staging_bytes="16Mi")
    options = per_node(alone, replace(alone, local=str(tmp_path / "empty")))
    for leaver in (0, 2):
        got = workers.call(ranks.stream_by_rank_and_leave, REPO, options, leaver, 1)
        assert all(each == fingerprints(model.tensors) for rank, each in enumerate(got) if rank != leaver)


def test_a_killed_rank_of_another_node_is_noticed_soon(doomed: Workers, model: Model) -> None:
    path = model.recorded()
    doomed.begin(ranks.stream_and_signal, str(path), 3, signal.SIGKILL)
    for rank in range(3):
        error = doomed.outcome(rank, within_s=20).error
        assert isinstance(error, fastload.GroupError)
        assert "rank 3" in str(error)
