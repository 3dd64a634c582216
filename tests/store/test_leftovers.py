"""What dead writers left goes; what anybody may still need stays."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from caches import BLOB_BYTES, Cache, commit_of, content_of
from fastload._store.admit.area import StagingArea
from fastload._store.admit.takeover import open_staged
from fastload._store.keep import leftovers
from fastload._store.keep.reclaim import reclaim_leftovers
from fastload._store.layout import BENCH_PREFIX, lease_folder
from fastload._store.lease.lease import LeaseTimes
from fastload._store.lease.wait import try_hold
from fastload._verify.manifest import Manifest, ManifestFile, dump_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from fastload._store.admit.staged import StagedFile

DAY_NS = 24 * 3600 * 1_000_000_000
KEY = "ab" * 32


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache with one snapshot."""
    cache = Cache(tmp_path / "hub")
    cache.add("org/a", 1, {"w": 1})
    return cache


def _stage(cache: Cache, key: str) -> tuple[StagingArea, StagedFile]:
    area = StagingArea(cache.layout("org/a").ours())
    area.make()
    staged = open_staged(area, key, BLOB_BYTES)
    staged.put(0, memoryview(content_of(7)))
    return area, staged


def _stage_and_die(cache: Cache, key: str) -> StagingArea:
    area, staged = _stage(cache, key)
    staged.close()
    return area


def _names(area: StagingArea) -> set[str]:
    return {*os.listdir(area.parts), *os.listdir(area.journals)}


def test_what_a_dead_writer_staged_goes(cache: Cache) -> None:
    area = _stage_and_die(cache, KEY)
    assert len(_names(area)) == 1
    assert reclaim_leftovers(str(cache.root), idle_s=600) == 0
    assert len(_names(area)) == 1
    assert reclaim_leftovers(str(cache.root)) == BLOB_BYTES
    assert not _names(area)


def test_what_a_living_writer_stages_stays(cache: Cache) -> None:
    area, staged = _stage(cache, KEY)
    assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + 2 * DAY_NS) == 0
    assert len(_names(area)) == 1
    staged.close()


def test_a_writer_of_another_boot_or_without_true_locks_is_not_known_to_be_dead(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = _stage_and_die(cache, KEY)
    with monkeypatch.context() as patched:
        patched.setattr(leftovers, "read_boot_id", lambda: "another")
        assert reclaim_leftovers(str(cache.root)) == 0
        assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + DAY_NS // 2) == 0
    with monkeypatch.context() as patched:
        patched.setattr(leftovers, "flock_is_truthful", lambda _: False)
        assert reclaim_leftovers(str(cache.root)) == 0
        assert len(_names(area)) == 1
        assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + DAY_NS + 1) == BLOB_BYTES
    assert not _names(area)


def test_what_was_staged_of_content_that_is_published_by_now_goes(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    area = _stage_and_die(cache, hashlib.sha256(content_of(1)).hexdigest())
    monkeypatch.setattr(leftovers, "read_boot_id", lambda: "another")
    assert reclaim_leftovers(str(cache.root), idle_s=600) == BLOB_BYTES
    assert not _names(area)
    assert cache.check() == {("org/a", commit_of(1))}


def test_a_journal_that_is_garbled_is_nobodys_death(cache: Cache) -> None:
    area = _stage_and_die(cache, KEY)
    for name in os.listdir(area.journals):
        with open(area.journal(name), "wb") as file:
            file.write(b"\xff\n")
    assert reclaim_leftovers(str(cache.root)) == 0
    assert _names(area)


def test_what_was_about_to_be_renamed_goes_after_a_day(cache: Cache) -> None:
    area = StagingArea(cache.layout("org/a").ours())
    area.make()
    os.makedirs(area.part(f"{commit_of(1)}.0123456789abcdef/sub"))
    os.symlink("../../blobs/x", area.part(f"{commit_of(1)}.0123456789abcdef/w"))
    open(area.part("main.0123456789abcdef"), "wb").close()
    reclaim_leftovers(str(cache.root))
    assert len(_names(area)) == 2
    reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + DAY_NS + 1_000_000_000)
    assert not _names(area)


def test_what_was_made_to_measure_with_goes_after_a_day(cache: Cache) -> None:
    made = cache.root / ".locks" / "fastload" / f"{BENCH_PREFIX}x"
    made.mkdir(parents=True)
    (made / "model.safetensors").write_bytes(bytes(BLOB_BYTES))
    assert reclaim_leftovers(str(cache.root)) == 0 and made.exists()
    assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + DAY_NS + 1_000_000_000) >= BLOB_BYTES
    assert not made.exists()


def test_blobs_of_a_manifest_without_a_snapshot_go(cache: Cache) -> None:
    """Its publisher died between the manifest and the folder."""
    layout, commit = cache.layout("org/a"), commit_of(2)
    content = content_of(8)
    names = hashlib.sha256(content).hexdigest(), hashlib.sha256(content_of(1)).hexdigest()
    with open(layout.blob(names[0]), "wb") as file:
        file.write(content)
    files = tuple(ManifestFile(f"{name}.bin", BLOB_BYTES, name, None, ("cd" * 32,)) for name in sorted(names))
    with open(layout.manifest(commit), "wb") as file:
        file.write(dump_manifest(Manifest("org/a", commit, "hub", files)))
    assert reclaim_leftovers(str(cache.root), idle_s=600) == 0
    lease = try_hold(lease_folder(str(cache.root)), "org--a", "warming", LeaseTimes())
    assert lease is not None
    with lease:
        assert reclaim_leftovers(str(cache.root)) == 0
    assert reclaim_leftovers(str(cache.root)) >= BLOB_BYTES
    assert cache.check() == {("org/a", commit_of(1))}
    assert not os.path.exists(layout.manifest(commit))


def test_folders_of_a_repo_that_is_empty_go(cache: Cache) -> None:
    empty = cache.layout("org/empty")
    os.makedirs(empty.snapshots)
    os.makedirs(empty.ours("staging"))
    os.makedirs(os.path.join(lease_folder(str(cache.root)), "emptied.0123456789abcdef", "snapshots"))
    reclaim_leftovers(str(cache.root))
    assert not os.path.exists(empty.folder)
    assert os.listdir(lease_folder(str(cache.root))) == []


def test_a_link_that_is_called_like_a_repo_that_was_emptied_leads_nowhere(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "outside" / "empty").mkdir(parents=True)
    os.makedirs(lease_folder(str(cache.root)), exist_ok=True)
    os.symlink(tmp_path / "outside", os.path.join(lease_folder(str(cache.root)), "emptied.models--org--a.x"))
    reclaim_leftovers(str(cache.root))
    assert (tmp_path / "outside" / "empty").is_dir()


def test_a_root_that_is_not_there_has_no_leftovers(tmp_path: Path) -> None:
    assert reclaim_leftovers(str(tmp_path / "none")) == 0


def test_what_resists_is_left_alone(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    area = _stage_and_die(cache, KEY)
    os.symlink("nowhere", area.journal(f"{KEY}.0123456789abcdef"))
    open(area.part("main.0123456789abcdef"), "wb").close()

    def refuse(path: str) -> None:
        raise PermissionError(13, os.strerror(13), path)

    monkeypatch.setattr(os, "unlink", refuse)
    assert reclaim_leftovers(str(cache.root), now_ns=time.time_ns() + 2 * DAY_NS) == 0
    assert len(_names(area)) == 3


def test_a_repo_that_is_filled_at_the_last_moment_stays(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = cache.layout("org/empty")
    os.makedirs(empty.snapshots)
    rename = os.rename

    def fill_first(path: str, target: str) -> None:
        if path == empty.folder:
            os.mkdir(empty.blobs)
        rename(path, target)

    monkeypatch.setattr(os, "rename", fill_first)
    reclaim_leftovers(str(cache.root))
    assert sorted(os.listdir(empty.folder)) == ["blobs", "snapshots"]
