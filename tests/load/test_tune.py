"""Which loads measure the depth of their disk, and which know it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fastload._format.checkpoint import Shard
from fastload._load.read.depth import tune
from fastload._read.choose import Choice, choose_reader
from fastload._read.depth import GatedReader
from fastload._read.head import read_header
from fastload._read.measured import Measured
from fastload._read.pread import BufferedReader
from fastload._system_file import read_boot_id
from models import MIB, save_large

if TYPE_CHECKING:
    from pathlib import Path

TUNABLE = Choice(BufferedReader, "direct", "local ext4, 0% cached", 8, is_tunable=True)


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    save_large(tmp_path, 2, MIB)
    path = tmp_path / "model.safetensors"
    return Shard(path.name, str(path), *read_header(str(path)))


@pytest.mark.parametrize(("cpus", "depth"), [(2, 8), (16, 16)])
def test_an_unknown_disk_is_tried(
    shard: Shard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: int, depth: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cpus)))
    monkeypatch.setattr("fastload._cgroup._MEMBERSHIP", os.devnull)  # no quota, whatever this machine has
    choice = tune({0: TUNABLE}, [shard], Measured(str(tmp_path)))[0]
    assert choice.depth == depth
    assert choice.digesting_depth == 2 * depth, "while the CPU digests, the disk must not wait for it"
    reader = choice.open(shard)
    assert isinstance(reader, GatedReader)
    assert reader.name == "buffered"
    reader.close()


def test_a_known_disk_is_not(shard: Shard, tmp_path: Path) -> None:
    measured = Measured(str(tmp_path / "measured"))
    device = shard.identity.dev
    measured.keep("depth", f"{read_boot_id()} {os.major(device)}:{os.minor(device)}", {"reads": 24})
    assert tune({0: TUNABLE}, [shard], measured)[0].depth == 24
    measured.keep("depth", f"{read_boot_id()} {os.major(device)}:{os.minor(device)}", {"reads": 10_000})
    assert tune({0: TUNABLE}, [shard], measured)[0].depth <= 16


def test_what_was_asked_for_by_name_is_left_alone(shard: Shard) -> None:
    named = choose_reader(shard, "direct")
    assert tune({0: named}, [shard], Measured(None)) == {0: named}
    warm = choose_reader(shard, "auto")
    assert tune({0: warm}, [shard], Measured(None)) == {0: warm}
