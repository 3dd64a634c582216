"""Mounts that fail, hang or go, under every verb: a sample of what ``make test-faults`` does."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from arena import REPO, model_files
from fastload._verify.digest import BLOCK_BYTES
from fuse_mount import Fault, fuse_mount, why_none
from mounted import Case, Mounts
from stored_models import COMMIT, write_cache
from warming import Tiers
from workers import shared_worker

if TYPE_CHECKING:
    from pathlib import Path

CASES = (
    Case("load by direct", "umount -l", 30),
    Case("load by buffered", "deadline", 50),
    Case("load by mmap", "ESTALE", 50),
    Case("inspect", "Ctrl-C", 5),  # in the midst of a header, which is read before any thread has begun
    Case("warm", "EIO", 50),
)


@pytest.fixture(autouse=True)
def _can_be_mounted() -> None:
    if reason := why_none():
        pytest.skip(reason)


def test_some_of_the_cases(tmp_path: Path) -> None:
    mounts = Mounts(shared_worker(torch=True), tmp_path)
    ends = {str(case): mounts.judge(case) for case in CASES}
    assert [end for end, _ in ends.values()][1:] == ["exit 19", "exit 15", "exit 130", "exit 15"], ends
    assert not [wrong for _, wrong in ends.values() if wrong], ends


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    write_cache(tmp_path / "shown", REPO, COMMIT, model_files())
    return Tiers(tmp_path)


def test_verify_tells_which_file_cannot_be_read(tiers: Tiers) -> None:
    end_of_a_shard = range(BLOCK_BYTES, 5 * BLOCK_BYTES)  # after so many reads it was now and then the config's turn
    with fuse_mount(tiers.folder / "shown", tiers.shared, Fault(0, errno.EIO, end_of_a_shard)):
        done = tiers.run("verify", REPO)
    assert done.returncode == 13, done.stderr
    assert "model-0000" in done.stderr and "cannot be read (Input/output error)" in done.stderr


def test_ls_tells_what_it_could_not_look_at(tiers: Tiers) -> None:
    with fuse_mount(tiers.folder / "shown", tiers.shared, Fault(0, errno.EIO)):
        done = tiers.run("ls")
    assert done.returncode == 0
    assert f"shared:{tiers.shared} could not be asked" in done.stderr
    assert "Input/output error" in done.stderr
