"""Refs: written once the snapshot is there, under a lease of their own; what the dead left goes."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from fastload._store.admit.reference import write_ref
from fastload._store.layout import RepoLayout, lease_folder
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import try_hold
from stored_models import COMMIT, OTHER_COMMIT, write_cache
from warming import MIB, Tiers, large_shard, tree

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._store.lease.holder import Holder

REPO = "org/name"
LEASE = "models--org--name--ref"
REMAINS = f"ref.{'1' * 16}"


def tell(holder: Holder) -> None:
    raise AssertionError(f"waited for {holder}")


@pytest.fixture
def layout(tmp_path: Path) -> RepoLayout:
    layout = RepoLayout(str(tmp_path / "models--org--name"))
    os.makedirs(layout.ours("staging"))
    return layout


def leave_remains(layout: RepoLayout) -> str:
    path = layout.ours("staging", REMAINS)
    with open(path, "wb") as file:
        file.write(COMMIT.encode())
    return path


def list_leases(layout: RepoLayout) -> list[str]:
    folder = lease_folder(os.path.dirname(layout.folder))
    return os.listdir(folder) if os.path.isdir(folder) else []


def test_it_is_written_once_and_only_when_it_changes(tmp_path: Path, layout: RepoLayout) -> None:
    write_ref(layout, "refs/pr/1", COMMIT, tell=tell)
    before = tree(tmp_path)
    write_ref(layout, "refs/pr/1", COMMIT, tell=tell)
    write_ref(layout, None, COMMIT, tell=tell)
    assert tree(tmp_path) == before
    write_ref(layout, "refs/pr/1", OTHER_COMMIT, tell=tell)
    assert (tmp_path / "models--org--name/refs/refs/pr/1").read_text() == OTHER_COMMIT
    assert list_leases(layout) == []


@pytest.mark.parametrize("revision", ["main", "other", None])
def test_what_the_dead_left_goes_whether_or_not_there_is_one_to_write(layout: RepoLayout, revision: str | None) -> None:
    write_ref(layout, "main", COMMIT, tell=tell)
    remains = leave_remains(layout)
    write_ref(layout, revision, COMMIT, tell=tell)
    assert not os.path.exists(remains)
    assert list_leases(layout) == []


def test_what_the_living_are_about_to_rename_stays(layout: RepoLayout) -> None:
    write_ref(layout, "main", COMMIT, tell=tell)
    remains = leave_remains(layout)
    lease = try_hold(lease_folder(os.path.dirname(layout.folder)), LEASE, "pointing", LeaseTimes())
    assert lease is not None
    with lease:
        write_ref(layout, "main", COMMIT, tell=tell)
        assert os.path.exists(remains)
        with pytest.raises(AssertionError, match="waited for pid"):
            write_ref(layout, "main", OTHER_COMMIT, tell=tell)
    write_ref(layout, "main", OTHER_COMMIT, tell=tell)
    assert not os.path.exists(remains)


def test_nobody_waits_for_a_ref_until_another_commit_is_brought(tmp_path: Path) -> None:
    tiers = Tiers(tmp_path)
    write_cache(tiers.shared, REPO, COMMIT, {"model.safetensors": large_shard(MIB, 1)}, ref="v1")
    write_cache(tiers.shared, REPO, OTHER_COMMIT, {"model.safetensors": large_shard(24 * MIB, 2)})
    tiers.warm(f"{REPO}@v1")
    shutil.rmtree(tiers.repo(REPO) / "refs")
    bringing = tiers.start("warm", REPO, "--max-rate", "1Mi")
    tiers.wait_staged(REPO)
    tiers.warm(f"{REPO}@v1")
    assert (tiers.repo(REPO) / "refs/v1").read_text() == COMMIT
    assert bringing.poll() is None, "it takes 24 s"
    bringing.terminate()
    bringing.communicate(timeout=20)
